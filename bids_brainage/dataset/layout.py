"""The index of pybids: what is indexed, and which images the queries give."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.dataset.filters import QUERIES, SUFFIXES
from bids_brainage.dataset.inventory import USED, name_problem
from bids_brainage.errors import InvalidDatasetError, OptionError
from bids_brainage.names import split_name

Image = tuple[str, dict[str, str], str]
"""Path relative to the dataset, entities by short key, and suffix."""

_NEVER = re.compile(r'^/(code|models|sourcedata|stimuli|derivatives)(/|$)')
# Where no raw image lies. Links to folders are followed: with two that lead back to where they
# are, pybids alone would walk 2^40 paths.
_DEEPER = re.compile(r'^(?!/?[^/]*$|/sub-[^/]+(/ses-[^/]+)?(/[^/]+){0,2}$)')
# Files that are no image to use; not indexed, because most of the time goes into them.
_OTHER_FILES = re.compile(
    r'/[^/.]*\.(?!nii(\.gz)?$)[^/]*$|_(?!T1w|UNIT1|bold)[0-9a-zA-Z]+\.nii(\.gz)?$'
)
_OTHER_FOLDERS = re.compile(r'^/sub-[^/]+/(ses-[^/]+/)?(beh|dwi|eeg|fmap|ieeg|meg|perf|pet)(/|$)')


def open_layout(
    root: Path,
    participants: Sequence[str],
    sessions: Sequence[str],
    database_dir: str | Path | None,
    forbidden: Sequence[str] = (),
) -> Any:
    """Index what is asked for, or open (make) the index of the whole dataset.

    Folders that must not be read (`forbidden`, relative to the dataset) are left out.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    def build(ignore: list[re.Pattern[str]], path: Path | None = None) -> Any:
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
        return BIDSLayout(str(root), validate=False, database_path=path, indexer=indexer)

    closed = [re.compile(f'^/{re.escape(folder)}(/|$)') for folder in forbidden]
    try:
        if database_dir is None:
            ignore = [_NEVER, _DEEPER, _OTHER_FILES, _OTHER_FOLDERS, *closed]
            ignore += _only('sub', '^/', participants) + _only('ses', '^/sub-[^/]+/', sessions)
            return build(ignore)
        path = Path(database_dir).absolute()
        if not any(path.glob('layout_index.sqlite')):
            # Made under another name and then moved: another job may be making it, too.
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
            build([_NEVER, _DEEPER, *closed], temporary).connection_manager.session.close()
            _adopt(temporary, path)
        layout = BIDSLayout(database_path=str(path))
    except PermissionError as error:
        raise InvalidDatasetError(
            f'{root} cannot be indexed by pybids: no permission to read {error.filename}. Give '
            'yourself the right to read it (chmod -R u+rX).'
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDatasetError(f'{root} cannot be indexed by pybids: {error}.') from error
    if Path(str(layout.root)).resolve() != root.resolve():
        raise OptionError(
            f'The index in {database_dir} is of {layout.root}, not of {root}. '
            'Give another --bids-database-dir.'
        )
    return layout


def _adopt(temporary: Path, path: Path) -> None:
    """Move the files of a finished index to its folder; one that is there already stays."""
    path.mkdir(exist_ok=True)
    for source in sorted(temporary.iterdir(), key=lambda item: item.suffix == '.sqlite'):
        source.replace(path / source.name)
    temporary.rmdir()


def _only(entity: str, place: str, labels: Sequence[str]) -> list[re.Pattern[str]]:
    """Return a pattern for the folders of all other labels; none when all are wanted."""
    if not labels:
        return []
    wanted = '|'.join(re.escape(label) for label in labels)
    return [re.compile(rf'{place}{entity}-(?!(?:{wanted})(?:/|$))')]


def query_images(
    layout: Any,
    participants: Sequence[str],
    queries: Mapping[str, Mapping[str, list[Any]]],
) -> list[Image]:
    """Run the T1w and the BOLD query; images with names of other kinds are left out."""
    from bids.layout import Query

    special = {None: Query.NONE, '*': Query.REQUIRED}
    found: dict[str, Image] = {}
    for name, kind in QUERIES.items():
        chosen = queries.get(name, {})
        base: dict[str, Any] = {**kind, 'suffix': SUFFIXES[name]}
        wanted = {
            entity: [special.get(value, value) for value in values]
            for entity, values in chosen.items()
        }
        if participants:
            wanted.setdefault('subject', list(participants))
        try:
            files = layout.get(extension=['.nii', '.nii.gz'], **{**base, **wanted})
        except ValueError as error:
            reason = str(error).partition(" If you're sure")[0]
            raise OptionError(f'BIDS filter, query {name!r}: {reason}') from error
        for item in files:
            relative = Path(item.path).relative_to(layout.root).as_posix()
            parsed = split_name(relative)
            if parsed is None or parsed.suffix not in USED or name_problem(relative):
                continue
            # The same name with and without .gz is one image: the compressed one is taken.
            stem = relative.removesuffix('.gz')
            if not (stem in found and relative == stem):
                found[stem] = (relative, parsed.entities, parsed.suffix)
    return [found[stem] for stem in sorted(found)]
