"""Find the T1w images that fMRIPrep or sMRIPrep prepared, with their brain masks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from bids_brainage.dataset.derivatives import has_content, is_nifti, numbered, side_content
from bids_brainage.dataset.header import SAME_GRID_MM
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.errors import MissingInputError
from bids_brainage.names import split_name

SAME_AGE_YEARS = 1.0
"""Images of one person that are averaged count as of one age up to this difference."""


@dataclass(frozen=True)
class PreparedScan(Scan):
    """A T1w image whose bias field another program has removed, with its brain mask.

    Of one raw image it has the names and the URI of that image; an average of several has its own.

    Attributes
    ----------
    path : Path
        The prepared image.
    mask : Path
        Brain mask on the same grid.
    home : Path
        What names of derivatives follow; there may be no such file.
    files_uris : tuple of str
        BIDS URIs of image and mask.
    raw : tuple of Scan
        Images of the dataset that it was made from, as far as they were selected.
    """

    mask: Path = Path()
    home: Path = Path()
    files_uris: tuple[str, ...] = ()
    raw: tuple[Scan, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The prepared image and its mask."""
        return self.path, self.mask

    @property
    def named(self) -> Path:
        """Path whose name the names of all derivatives follow."""
        return self.home

    @property
    def sources(self) -> tuple[str, ...]:
        """BIDS URIs of all that is read, or was averaged, the one that rows name first."""
        return tuple(dict.fromkeys((self.uri, *self.files_uris, *(s.uri for s in self.raw))))

    @property
    def given_mask(self) -> Path | None:
        """Brain mask of another program; the image has no bias field, either."""
        return self.mask

    @property
    def averaged(self) -> tuple[Scan, ...]:
        """Images of the dataset that this is the average of; none for one of them."""
        return () if self.uri == self.raw[0].uri else self.raw


@dataclass(frozen=True)
class PreparedT1w:
    """Files that fMRIPrep made of one raw T1w image, or of several.

    Attributes
    ----------
    t1w, mask : Path
        Image and brain mask on one grid.
    entities : dict
        Those of the name, without ``desc``.
    made_of : frozenset of str
        File names of the raw images, as side files list them; empty if they do not.
    """

    t1w: Path
    mask: Path
    entities: Mapping[str, str]
    made_of: frozenset[str] = frozenset()


def find_fmriprep_t1w(root: Path, scan: Scan) -> PreparedT1w:
    """Find what fMRIPrep or sMRIPrep made of one raw T1w image.

    Parameters
    ----------
    root : Path
        Root of its output.
    scan : Scan
        The raw image; run labels match as numbers (``run-1`` and ``run-01``).

    Returns
    -------
    PreparedT1w
        In the person's own space.  Of several the one whose name has most in common.

    Raises
    ------
    MissingInputError
        There is no such image, no mask of its name, a link without content, or the two do not
        lie on one grid.
    """
    found = [item for item in _candidates(root, scan) if _is_of(item[2], scan)]
    if not found:
        place = root / f'sub-{scan.subject}'
        raise MissingInputError(
            f'{place}: expected {scan.stem}_desc-preproc_T1w.nii.gz, or one of a name with fewer '
            f'entities that was made from {scan.named.name}; found none.'
        )
    path, entities, made_of = max(found, key=lambda item: len(item[1]))
    masks = [
        other
        for other in sorted(path.parent.glob(f'sub-{scan.subject}_*'))
        if _matches(other, 'mask', 'brain') == entities
    ]
    if not masks:
        raise MissingInputError(
            f'{path} has no brain mask beside it: expected the same name with desc-brain_mask. '
            'Copy it from the fMRIPrep output.'
        )
    for needed in (path, masks[0]):
        if not has_content(needed):
            raise MissingInputError(
                f'{needed} is empty or a link to content that is not here. Fetch it (for example '
                'with `datalad get`).'
            )
    _check_grids(path, masks[0])
    return PreparedT1w(path, masks[0], entities, made_of)


def use_prepared(
    scans: Sequence[Scan], name: str, root: Path
) -> tuple[tuple[Scan, ...], tuple[str, ...]]:
    """Put what fMRIPrep prepared in the place of raw T1w images.

    Parameters
    ----------
    scans : sequence of Scan
        T1w images of the dataset.
    name : str
        Name of the derivatives in URIs.
    root : Path
        Root of the output of fMRIPrep.

    Returns
    -------
    scans : tuple of Scan
        A raw image for which there is nothing stays; an average of several takes their place.
    notes : tuple of str
        Why derivatives are not used.
    """
    found: dict[Path, PreparedT1w] = {}
    groups: dict[Path, list[Scan]] = {}
    notes = []
    for scan in scans:
        try:
            item = find_fmriprep_t1w(root, scan)
        except MissingInputError as error:
            item = PreparedT1w(scan.path, Path(), {})
            notes.append(f'{scan.relative}: not taken from {name}, the raw image is used: {error}')
        found[item.t1w] = item
        groups.setdefault(item.t1w, []).append(scan)
    chosen: list[Scan] = []
    for path, group in groups.items():
        item = found[path]
        ages = [scan.age.years for scan in group if scan.age.years is not None]
        if not item.entities:
            chosen += group
        elif ages and max(ages) - min(ages) > SAME_AGE_YEARS:
            chosen += group
            notes.append(
                f'{path} is an average over {max(ages) - min(ages):.1f} years, expected at most '
                f'{SAME_AGE_YEARS:g}: a change over time would be averaged away. The raw images '
                f'are used: {", ".join(scan.relative for scan in group)}'
            )
        elif _is_average(item, group):
            chosen.append(_average(item, group, ages, name, root))
        else:
            chosen.append(_single(item, group[0], name, root))
    return tuple(chosen), tuple(notes)


def _candidates(
    root: Path, scan: Scan
) -> Iterator[tuple[Path, Mapping[str, str], frozenset[str]]]:
    """Yield prepared images whose entities the scan has, too, with what they were made of."""
    person = root / f'sub-{scan.subject}'
    own = numbered(scan.entities)
    for folder in [person / 'anat', *([person / f'ses-{scan.session}/anat'] * bool(scan.session))]:
        for path in sorted(folder.glob(f'sub-{scan.subject}_*')):
            entities = _matches(path, 'T1w', 'preproc')
            if entities is not None and entities.items() <= own.items():
                yield path, entities, _made_of(path)


def _matches(path: Path, suffix: str, desc: str) -> dict[str, str] | None:
    """Return the entities of an image in native space but ``desc``, None of any other file."""
    name = split_name(path.name)
    if name is None or name.suffix != suffix or not is_nifti(name):
        return None
    entities = numbered(name.entities)
    if entities.pop('desc', None) != desc or {'space', 'res', 'den'} & entities.keys():
        return None
    return entities


def _made_of(path: Path) -> frozenset[str]:
    """Return the names of the raw T1w images that the side files of image or mask list."""
    mask = path.with_name(path.name.replace('desc-preproc_T1w', 'desc-brain_mask'))
    listed: list[Any] = []
    for content in (side_content(path), side_content(mask)):
        for key in ('Sources', 'RawSources'):
            value = content.get(key, [])
            listed += value if isinstance(value, list) else [value]
    names = (Path(str(entry).rpartition(':')[2]).name for entry in listed)
    return frozenset(n for n in names if n.partition('.')[0].endswith('_T1w') and 'desc-' not in n)


def _is_of(made_of: frozenset[str], scan: Scan) -> bool:
    return not made_of or scan.named.name in made_of


def _is_average(item: PreparedT1w, group: Sequence[Scan]) -> bool:
    """Return whether an image was made from several; without a list its name says so."""
    if item.made_of:
        return len(item.made_of) > 1
    return len(group) > 1 or (group[0].session is not None and 'ses' not in item.entities)


def _single(item: PreparedT1w, scan: Scan, name: str, root: Path) -> PreparedScan:
    """Return a raw image with what was prepared of it in the place of its file."""
    return _prepared(scan, item, name, root, path=item.t1w, home=scan.path, raw=(scan,))


def _average(
    item: PreparedT1w, group: Sequence[Scan], ages: Sequence[float], name: str, root: Path
) -> PreparedScan:
    """Return the scan that stands for several raw ones, at their mean age."""
    first = next((scan for scan in group if scan.age.years is not None), group[0])
    age = first.age
    if ages:
        censored = any(scan.age.censored for scan in group)
        age = Age(sum(ages) / len(ages), censored, first.age.source)
    name_parts = split_name(item.t1w.name)
    entities = dict(name_parts.entities) if name_parts else dict(item.entities)
    entities.pop('desc', None)
    stem = '_'.join(f'{key}-{label}' for key, label in entities.items())
    return _prepared(
        group[0],
        item,
        name,
        root,
        path=item.t1w,
        relative=item.t1w.relative_to(root).as_posix(),
        dataset=name,
        session=entities.get('ses'),
        run=entities.get('run'),
        entities=entities,
        age=age,
        home=item.t1w.with_name(f'{stem}_T1w.nii.gz'),
        raw=tuple(group),
    )


def _prepared(
    scan: Scan, item: PreparedT1w, name: str, root: Path, **changes: Any
) -> PreparedScan:
    own = {field.name: getattr(scan, field.name) for field in fields(Scan)}
    uris = tuple(
        f'bids:{name}:{path.relative_to(root).as_posix()}' for path in (item.t1w, item.mask)
    )
    return PreparedScan(**{**own, 'mask': item.mask, 'files_uris': uris, **changes})


def _check_grids(t1w: Path, mask: Path) -> None:
    """Refuse a mask that does not lie on the grid of its image, by the headers alone."""
    import nibabel as nib
    import numpy as np

    grids = []
    for path in (t1w, mask):
        try:
            image = cast('nib.nifti1.Nifti1Image', nib.load(path))
            grids.append((image.shape[:3], np.asarray(image.affine, dtype=float)))
        except (
            OSError,
            EOFError,
            ValueError,
            zlib.error,
            nib.filebasedimages.ImageFileError,
        ) as e:
            raise MissingInputError(f'{path} cannot be read as an image: {e}.') from e
    (shape, affine), (other, turned) = grids
    if shape != other or not np.allclose(affine, turned, atol=SAME_GRID_MM):
        expected, found = (' x '.join(map(str, size)) for size in (shape, other))
        raise MissingInputError(
            f'{mask} does not lie on the grid of {t1w.name}: expected {expected} voxels '
            f'with the same affine, found {found}. Copy both from one fMRIPrep output.'
        )
