"""What lies in the folders of participants, and why an image of theirs is not used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bids_brainage.names import prefix_entities

EXTENSIONS = ('.nii', '.nii.gz')
USED = {'T1w': 'anat', 'UNIT1': 'anat', 'bold': 'func'}
"""Suffixes of the images that are used, and the folder they belong into."""

_NIFTI = re.compile(r'(?P<bare>.+?)(?P<extension>\.nii(\.gz)?)', re.IGNORECASE)
_CANDIDATE = re.compile(r'(T1w?|UNIT1|bold)', re.IGNORECASE)
_LABEL = re.compile(r'[0-9a-zA-Z+]+')
_WHAT = {'T1w': 'T1w', 'T1': 'T1w', 'UNIT1': 'UNIT1', 'BOLD': 'bold'}


@dataclass
class Person:
    """What the folders of one participant hold.

    Attributes
    ----------
    label : str
        Without ``sub-``.
    images : list of str
        NIfTI files below the folder, relative to the dataset.
    unreadable : list of str
        Folders that must not be read.
    """

    label: str
    images: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def without_t1w(self) -> str:
        """Say what was found in place of a usable T1w image."""
        if self.unreadable:
            return f'no permission to read {", ".join(self.unreadable)}'
        if not self.images:
            return 'no image in anat or func'
        found = Counter(_suffix(Path(path).name) for path in self.images)
        listed = ', '.join(f'{count} {suffix}' for suffix, count in sorted(found.items()))
        unused = any(_CANDIDATE.fullmatch(suffix) and suffix.lower() != 'bold' for suffix in found)
        return f'found {listed}' + (', passed over or not selected' if unused else '')


def take_stock(root: Path, labels: Iterable[str], sessions: Collection[str] = ()) -> list[Person]:
    """List the images of participants: their folder, its sessions, and anat and func of each.

    Links to folders are followed; as only these places are looked at, a link to a folder above
    leads nowhere.

    Parameters
    ----------
    root : Path
        The dataset.
    labels : iterable of str
        Participants, without ``sub-``.
    sessions : collection of str
        Sessions to look at, without ``ses-``; empty for all.
    """
    people = []
    for label in labels:
        person = Person(label)
        home = f'sub-{label}'
        folders = _list(root, home, person)
        places = [home]
        for name in folders:
            if name.startswith('ses-') and (not sessions or name[4:] in sessions):
                inner = _list(root, f'{home}/{name}', person)
                places.append(f'{home}/{name}')
                for kind in ('anat', 'func'):
                    if kind in inner:
                        _list(root, f'{home}/{name}/{kind}', person)
            elif name in ('anat', 'func'):
                _list(root, f'{home}/{name}', person)
        people.append(person)
    return people


def _list(root: Path, relative: str, person: Person) -> list[str]:
    """Add the images of one folder to a person; return its folders."""
    folders = []
    try:
        entries = sorted((root / relative).iterdir())
    except PermissionError:
        person.unreadable.append(relative)
        return []
    except OSError:  # a file, or a link that leads nowhere
        return []
    for entry in entries:
        if _NIFTI.fullmatch(entry.name):
            person.images.append(f'{relative}/{entry.name}')
        elif '.' not in entry.name and entry.is_dir():
            folders.append(entry.name)
    return folders


def name_problem(relative: str) -> str | None:
    """Return why an image cannot be used under its name, and a name that would do.

    Parameters
    ----------
    relative : str
        Path relative to the dataset.

    Returns
    -------
    str or None
        None for a good name, and for the names of other kinds of images.

    Examples
    --------
    >>> name_problem('sub-01/anat/sub-01_acq-0.8mm_T1w.nii.gz')
    "label '0.8mm' of acq- has other characters than letters and digits: rename it to \
sub-01_acq-0p8mm_T1w.nii.gz"
    """
    *folders, name = relative.split('/')
    match = _NIFTI.fullmatch(name)
    if match is None:
        return None
    *chunks, suffix = match['bare'].split('_')
    if not _CANDIDATE.fullmatch(suffix):
        return None
    problems: list[str] = []
    good_suffix = _WHAT.get(suffix, _WHAT.get(suffix.upper(), 'T1w'))
    if suffix != good_suffix:
        problems.append(f'suffix {suffix} is not one of BIDS')
    extension = match['extension']
    if extension not in EXTENSIONS:
        problems.append(f'extension {extension} is not in small letters')
    entities = _entities(chunks, problems)
    if 'desc' in entities or 'space' in entities:
        return 'a processed image, not raw'
    if not problems:
        return _place_problem(folders, entities, good_suffix)
    if entities.get('sub') is None:
        return f'{"; ".join(problems)}: not a BIDS name'
    parts = [f'{key}-{value}' for key, value in entities.items()]
    better = '_'.join([*parts, good_suffix]) + extension.lower()
    moved = (
        '' if f'sub-{entities["sub"]}' == folders[0] else f', in a folder sub-{entities["sub"]}'
    )
    return f'{"; ".join(problems)}: rename it to {better}{moved}'


def _entities(chunks: Sequence[str], problems: list[str]) -> dict[str, str]:
    """Read entities, correcting what BIDS does not allow and saying so in `problems`."""
    known = prefix_entities()
    entities: dict[str, str] = {}
    strange: list[str] = []
    for chunk in chunks:
        key, dash, label = chunk.partition('-')
        plain = re.sub('[^0-9a-zA-Z+]', '', label.replace('.', 'p'))
        if not dash or not plain:
            problems.append(f'{chunk!r} is not made of a key, a dash and a label')
            strange.append(re.sub('[^0-9a-zA-Z]', '', chunk))
            continue
        if not _LABEL.fullmatch(label):
            problems.append(
                f'label {label!r} of {key}- has other characters than letters and digits'
            )
        if key in known or key in ('desc', 'space'):
            if key in entities:
                problems.append(f'{key}- stands in it twice')
            entities[key] = plain
        elif key.lower() in known:
            problems.append(f'{key}- is not in small letters')
            entities[key.lower()] = plain
        else:
            problems.append(f'{key}- is no entity of such images in BIDS')
            strange.append(re.sub('[^0-9a-zA-Z]', '', key) + plain)
    if strange:
        entities['acq'] = entities.get('acq', '') + ''.join(strange)
    order = [*known, 'desc', 'space']
    return {key: entities[key] for key in sorted(entities, key=order.index)}


def _place_problem(folders: Sequence[str], entities: Mapping[str, str], suffix: str) -> str | None:
    """Return why an image with a good name does not belong where it lies."""
    home = [f'sub-{entities.get("sub")}']
    if 'ses' in entities:
        home.append(f'ses-{entities["ses"]}')
    if list(folders) == [*home, USED[suffix]]:
        return None
    return (
        f'not a BIDS name for its folder: it belongs into {"/".join([*home, USED[suffix]])}, or '
        f'its name must begin with {"_".join(f for f in folders if f[:4] in ("sub-", "ses-"))}'
    )


def _suffix(name: str) -> str:
    match = _NIFTI.fullmatch(name)
    return match['bare'].rpartition('_')[2] if match else name
