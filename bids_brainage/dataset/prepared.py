"""Find the T1w images that fMRIPrep or sMRIPrep prepared, with their brain masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.dataset.derivatives import has_content, is_nifti, numbered, side_content
from bids_brainage.dataset.header import SAME_GRID_MM, unreadable
from bids_brainage.dataset.scan import Prepared, Scan
from bids_brainage.errors import MissingInputError
from bids_brainage.names import split_name

if TYPE_CHECKING:
    import numpy as np


def use_prepared(
    scans: Sequence[Scan], name: str, root: Path
) -> tuple[tuple[Scan, ...], tuple[str, ...]]:
    """Give T1w images what fMRIPrep made of them.

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
        The same images in the same order; one for which there is nothing stays as it is.
    notes : tuple of str
        Why derivatives are not used.
    """
    chosen, notes = [], []
    for scan in scans:
        if scan.problem is None:
            try:
                scan = replace(scan, prepared=find_fmriprep_t1w(root, name, scan))
            except MissingInputError as error:
                notes.append(f'{scan.relative}: not taken from {name}, our own steps run: {error}')
        chosen.append(scan)
    return tuple(chosen), tuple(notes)


def find_fmriprep_t1w(root: Path, name: str, scan: Scan) -> Prepared:
    """Find what fMRIPrep or sMRIPrep made of one raw T1w image.

    Parameters
    ----------
    root : Path
        Root of its output.
    name : str
        Its name in URIs.
    scan : Scan
        The raw image; run labels match as numbers (``run-1`` and ``run-01``).

    Returns
    -------
    Prepared
        Image and brain mask on the grid of the raw image, but for the order of the axes.

    Raises
    ------
    MissingInputError
        There is no such image, or only an average of several, no mask of its name, a link without
        content, or another grid.
    """
    found = list(_candidates(root, scan))
    own = [item for item in found if item.is_of(scan)]
    if not own:
        raise MissingInputError(_nothing(root, scan, found))
    best = max(own, key=lambda item: len(item.entities))
    masks = [
        other
        for other in sorted(best.t1w.parent.glob(f'sub-{scan.subject}_*'))
        if _matches(other, 'mask', 'brain') == best.entities
    ]
    if not masks:
        raise MissingInputError(
            f'{best.t1w} has no brain mask beside it: expected the same name with '
            'desc-brain_mask. Copy it from the fMRIPrep output.'
        )
    files = (best.t1w, masks[0])
    for needed in files:
        if not has_content(needed):
            raise MissingInputError(
                f'{needed} is empty or a link to content that is not here. Fetch it (for example '
                'with `datalad get`).'
            )
    _check_grids(scan.path, files)
    uris = tuple(f'bids:{name}:{path.relative_to(root).as_posix()}' for path in files)
    return Prepared(*files, uris)


@dataclass(frozen=True)
class _Candidate:
    """A prepared image whose entities the raw image has, too.

    Attributes
    ----------
    t1w : Path
    entities : dict
        Those of the name, without ``desc``.
    made_of : frozenset of str
        File names of the raw T1w images, as side files list them; empty if they do not.
    """

    t1w: Path
    entities: Mapping[str, str]
    made_of: frozenset[str]

    def is_of(self, scan: Scan) -> bool:
        """Return whether it was made of this raw image and no other.

        Without a list, an entity that its name lacks tells of an average over it.
        """
        if self.made_of:
            return self.made_of == {scan.path.name}
        return self.entities == numbered(scan.entities)


def _candidates(root: Path, scan: Scan) -> Iterator[_Candidate]:
    """Yield prepared images whose entities the scan has, too."""
    raw = split_name(scan.path.name)
    if raw is None or raw.suffix != 'T1w':  # fMRIPrep takes no UNIT1 images
        return
    person = root / f'sub-{scan.subject}'
    own = numbered(scan.entities)
    for folder in [person / 'anat', *([person / f'ses-{scan.session}/anat'] * bool(scan.session))]:
        for path in sorted(folder.glob(f'sub-{scan.subject}_*')):
            entities = _matches(path, 'T1w', 'preproc')
            if entities is not None and entities.items() <= own.items():
                yield _Candidate(path, entities, _made_of(path))


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


def _nothing(root: Path, scan: Scan, found: Sequence[_Candidate]) -> str:
    """Say what was expected of a raw image, and what was found in place of it."""
    for item in found:
        if item.made_of and scan.path.name not in item.made_of:
            continue
        listed = f' ({", ".join(sorted(item.made_of))})' if item.made_of else ''
        return (
            f'{item.t1w} is, as its side files or its name say, an average of several '
            f'images{listed}, expected one of {scan.path.name} alone: the volumes of regions are '
            'measured on the raw image, which need not lie where an average does.'
        )
    return (
        f'{root / f"sub-{scan.subject}"}: expected {scan.stem}_desc-preproc_T1w.nii.gz, or one of '
        f'a name with fewer entities that was made of {scan.path.name}; found none.'
    )


def _check_grids(raw: Path, prepared: Sequence[Path]) -> None:
    """Refuse images that do not lie on the grid of the raw one, by the headers alone."""
    import numpy as np

    shape, affine = _grid(raw)
    for path in prepared:
        other, turned = _grid(path)
        if shape != other or not np.allclose(affine, turned, atol=SAME_GRID_MM):
            expected, found = (' x '.join(map(str, size)) for size in (shape, other))
            raise MissingInputError(
                f'{path} does not lie on the grid of {raw.name}: expected {expected} voxels '
                f'with the same affine, found {found}. Both must come from one fMRIPrep output '
                'of this dataset.'
            )


def _grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and affine of an image in RAS+ order, without reading its voxels."""
    import nibabel as nib
    import numpy as np

    failures: tuple[type[Exception], ...] = (*unreadable(), np.linalg.LinAlgError, IndexError)
    try:
        image: Any = nib.load(path)
        stored = np.asarray(image.affine, dtype=float)
        order = nib.io_orientation(stored)
        shape = image.shape[:3]
        affine = stored @ nib.orientations.inv_ornt_aff(order, shape)
        return tuple(int(shape[axis]) for axis in np.argsort(order[:, 0])), affine
    except failures as error:
        raise MissingInputError(f'{path} cannot be read as an image: {error}.') from error
