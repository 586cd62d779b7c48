"""Find the cerebral blood volume (CBV) map that somebody made of a T1w image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.dataset.header import SAME_GRID_MM, unreadable
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError, UnusableImageError
from bids_brainage.names import CBV_DESC as DESC
from bids_brainage.names import side_file, split_name

OWN_SPACE = 'T1w'

_EXTENSIONS = ('.nii', '.nii.gz')


@dataclass(frozen=True)
class CbvSource:
    """Where the CBV map of a T1w image comes from.

    Attributes
    ----------
    path : Path
        The map; or the weights of the generator that makes it.
    uri : str
        BIDS URI of the map, or the file name of the weights.
    space : str or None
        ``'T1w'`` or the label of the template; None for a map that is yet to be generated.
    sha256 : str
        Of the file; empty until it was computed.
    """

    path: Path
    uri: str
    space: str | None = None
    sha256: str = ''


def find_cbv_map(name: str, root: Path, scan: Scan, template_space: str) -> CbvSource | None:
    """Find the map of one T1w image in a derivative dataset.

    Parameters
    ----------
    name : str
        Name of the derivatives, for the URI.
    root : Path
        Their folder.
    scan : Scan
        The T1w image.  The map has the same entities, ``desc-aicbv``, and ``space-T1w`` (or no
        ``space-``) or the template's ``space-``.
    template_space : str
        TemplateFlow label.

    Returns
    -------
    CbvSource or None
        The map in the image's own space before that in template space; None if there is none.

    Raises
    ------
    MissingInputError
        The file is empty, or a link without content.
    UnusableImageError
        The map is in another space, on another grid than the T1w image (own space), not
        three-dimensional, or its side file names another T1w image.
    """
    found = _maps_of(root, scan)
    if not found:
        return None
    usable = {space: path for path, space in reversed(found)}
    path = usable.get(OWN_SPACE, usable.get(template_space))
    if path is None:
        raise UnusableImageError(
            f'{found[0][0]}: the CBV map is in space {found[0][1]}; expected that of the T1w '
            f'image (no space- in the name, or space-T1w) or {template_space}. Resample it.'
        )
    space = OWN_SPACE if usable.get(OWN_SPACE) == path else template_space
    if not path.is_file() or path.stat().st_size == 0:
        raise MissingInputError(
            f'{path} is empty or a link to content that is not here. Fetch it (for example with '
            '`datalad get`).'
        )
    _check_origin(path, scan)
    _check_grid(path, scan if space == OWN_SPACE else None)
    return CbvSource(path, f'bids:{name}:{path.relative_to(root).as_posix()}', space)


def _maps_of(root: Path, scan: Scan) -> list[tuple[Path, str]]:
    """Return maps whose name says that they belong to this image, with their space."""
    folder = root / f'sub-{scan.subject}'
    folder = folder / f'ses-{scan.session}' if scan.session else folder
    found = []
    for path in sorted((folder / 'anat').glob(f'sub-{scan.subject}_*desc-{DESC}_T1w.nii*')):
        name = split_name(path.name)
        if name is None or name.extension not in _EXTENSIONS:
            continue
        entities = dict(name.entities)
        space = entities.pop('space', OWN_SPACE)
        entities.pop('desc')
        entities.pop('res', None)
        if entities == dict(scan.entities):
            found.append((path, space))
    return found


def _check_origin(path: Path, scan: Scan) -> None:
    """Refuse a map whose side file says that it was made from another raw image."""
    try:
        content: Any = json.loads(side_file(path).read_text(encoding='utf-8-sig'))
    except (OSError, ValueError):
        return
    listed = content.get('Sources') if isinstance(content, Mapping) else None
    names = [str(item).rpartition('/')[2].rpartition(':')[2] for item in listed or ()]
    raw = [name for name in names if _is_raw_t1w(name)]
    if raw and scan.path.name not in raw:
        raise UnusableImageError(
            f'{path}: its side file says that it was made from {", ".join(raw)}, expected '
            f'{scan.path.name}. Rename the map, or correct Sources.'
        )


def _is_raw_t1w(file_name: str) -> bool:
    name = split_name(file_name)
    return (
        name is not None
        and name.suffix == 'T1w'
        and name.extension in _EXTENSIONS
        and not {'desc', 'space'} & name.entities.keys()
    )


def _check_grid(path: Path, scan: Scan | None) -> None:
    """Check the header: three axes and, in own space, the grid of the T1w image."""
    import nibabel as nib
    import numpy as np

    try:
        image: Any = nib.load(path)
        own: Any = image if scan is None else nib.load(scan.path)
    except unreadable() as error:
        raise UnusableImageError(f'{path}: cannot be read as an image: {error}.') from error
    shape = tuple(n for n in image.shape if n != 1)
    if len(shape) != 3:
        raise UnusableImageError(f'{path}: shape {image.shape}, expected three axes.')
    wanted = tuple(own.shape[:3])
    away = float(np.abs(image.affine - own.affine).max())
    if tuple(image.shape[:3]) != wanted or away > SAME_GRID_MM:
        raise UnusableImageError(
            f'{path}: shape {image.shape[:3]} and an affine that differs by up to {away:.3g} mm; '
            f'expected the grid of {scan.path.name if scan else path.name}, shape {wanted}. '
            'Resample the map onto it.'
        )
