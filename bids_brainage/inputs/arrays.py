"""From the derivatives of one scan to exactly the arrays that a model takes.

What a model takes stands in the ``input`` block of its bundle; each ``kind`` has one function
here.  Training and prediction both come through `prepare_input`, so they cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_brainage.dataset.header import SAME_GRID_MM
from bids_brainage.errors import BundleError, MissingInputError
from bids_brainage.inputs.clinical import prepare_clinical, synthetic_slices
from bids_brainage.inputs.connectivity import prepare_structural, read_connectivity
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.inputs.reduce import reduce_half
from bids_brainage.inputs.sfcn import prepare_sfcn
from bids_brainage.inputs.volumes import INTRACRANIAL, log_ratios
from bids_brainage.preprocessing.resample import onto_grid

FSL_GRID = ((182, 218, 182), (-91.0, -126.0, -72.0))
"""Shape and first voxel centre (RAS+ mm) of the usual 1 mm MNI152 box."""


@dataclass(frozen=True)
class PreparedInput:
    """Arrays of one scan for one model.

    Attributes
    ----------
    arrays : tuple of ndarray
        In the order of the model's ``forward``, without batch axis; None for a modality that
        is missing where the model can do without it.
    affine : ndarray, shape (4, 4), or None
        Grid of the first array → RAS+ mm of ``space``; None if it is not an image.
    space : str or None
        TemplateFlow label, ``'T1w'`` for the person's own space, or None.
    note : str
        What was done differently from the usual, empty if nothing.
    """

    arrays: tuple[np.ndarray | None, ...]
    affine: np.ndarray | None
    space: str | None
    note: str = ''


Files = Mapping[str, Path]
"""Derivatives by role: ``t1w`` (brain, aligned with the template by an affine), ``gm_modulated``
(deformed to the template), ``volumes`` (table), ``region_volumes`` (table) with ``regions``
(labels, own space), ``t1w_uncorrected`` (own space, RAS+, bias field left in), ``mask_native``,
``connectivity``."""


def prepare_input(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Prepare the input of a model.

    Parameters
    ----------
    declared : mapping
        The ``input`` block of the bundle's metadata.
    files : mapping
        Role → file.

    Returns
    -------
    PreparedInput

    Raises
    ------
    MissingInputError
        If a derivative that the model needs is not there.
    BundleError
        If no preparation of this kind is known.
    """
    kind = declared['kind']
    if kind not in _PREPARE:
        raise BundleError(
            f'model input kind {kind!r} is unknown; known are {", ".join(sorted(_PREPARE))}. '
            'The bundle was made for a newer version of this program.'
        )
    return _PREPARE[kind](declared, files)


def roles_of(kind: str) -> tuple[str, ...]:
    """Return the derivatives that a model of an input kind is given."""
    return _ROLES[kind]


def is_aligned(kind: str) -> bool:
    """Tell whether an input shows the brain aligned with the template by an affine.

    Its proportions are kept, as the papers of Systems B and SFCN have it; a deformation would take
    most of the ageing away.
    """
    return 't1w' in _ROLES[kind]


def _file(files: Files, role: str) -> Path:
    path = files.get(role)
    if path is None or not Path(path).is_file():
        raise MissingInputError(
            f'the model needs the derivative {role!r} of this scan, which is not there'
            f'{f" ({path})" if path else ""}. Run the participant level again.'
        )
    return Path(path)


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=float)


def _target(declared: Mapping[str, Any]) -> tuple[tuple[int, ...], np.ndarray]:
    if declared['affine'] is None:
        raise BundleError(
            'the bundle names no affine for its input grid, so images cannot be brought onto '
            'it; expected `input.affine` in metadata.json.'
        )
    return tuple(declared['shape']), np.asarray(declared['affine'], dtype=float)


def _modulated_gm(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    data, affine = _load(_file(files, 'gm_modulated'))
    shape, target = _target(declared)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(np.linalg.norm(target[:3, :3], axis=0), 2 * size):
        # the published recipe: the box at full resolution (odd), then blocks of 2 × 2 × 2
        box = target.copy()
        box[:3, :3] /= 2
        box[:3, 3] -= box[:3, :3] @ np.array([0.5, 0.5, 0.5])
        full = onto_grid(data, affine, tuple(2 * n + 1 for n in shape), box)
        volume, target = reduce_half(full, box)
    else:
        volume = onto_grid(data, affine, shape, target)
    return PreparedInput((volume[None],), target, declared['space'])


def _t1w_brain(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    path = _file(files, 't1w')
    data, affine = _load(path)
    shape, target = _target(declared)
    volume = scale_by_top_percent(onto_grid(data, affine, shape, target), source=str(path))
    return PreparedInput((volume[None],), target, declared['space'])


def _fsl_brain(files: Files) -> tuple[np.ndarray, np.ndarray]:
    data, affine = _load(_file(files, 't1w'))
    box = np.eye(4)
    box[:3, 3] = FSL_GRID[1]
    return onto_grid(data, affine, FSL_GRID[0], box), box


def _on_declared_grid(
    volume: np.ndarray, affine: np.ndarray, declared: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume on the declared grid; one that is there already is left untouched."""
    shape, target = _target(declared)
    if volume.shape == shape and np.allclose(affine, target, rtol=0, atol=SAME_GRID_MM):
        return volume, affine
    return onto_grid(volume, affine, shape, target), target


def _t1w_sfcn(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    volume, affine = _on_declared_grid(*prepare_sfcn(*_fsl_brain(files)), declared)
    return PreparedInput((volume[None],), affine, declared['space'])


def _t1w_clinical(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    return _clinical(declared, files, *_native_brain(files))


def prepare_slices(declared: Mapping[str, Any], files: Files) -> list[PreparedInput]:
    """Prepare a research scan as the thick-slice scans that it contains (System C).

    Parameters
    ----------
    declared, files
        As for `prepare_input`, of kind ``t1w_clinical``.

    Returns
    -------
    list of PreparedInput
        One for each offset, see `bids_brainage.inputs.clinical.synthetic_slices`.
    """
    return [
        _clinical(declared, files, data, affine)
        for data, affine in synthetic_slices(*_native_brain(files))
    ]


def _native_brain(files: Files) -> tuple[np.ndarray, np.ndarray]:
    data, affine = _load(_file(files, 't1w_uncorrected'))
    mask, _ = _load(_file(files, 'mask_native'))
    return data * (mask > 0), affine


def _clinical(
    declared: Mapping[str, Any], files: Files, data: np.ndarray, affine: np.ndarray
) -> PreparedInput:
    sizes = declared['voxel_size_mm']
    if len(set(sizes)) != 1:
        raise BundleError(
            f'the bundle asks for voxels of {sizes} mm; expected equal edges for input kind '
            't1w_clinical. Correct `input.voxel_size_mm` in metadata.json.'
        )
    ready = prepare_clinical(
        data,
        affine,
        shape=tuple(declared['shape']),
        voxel_size_mm=float(sizes[0]),
        source=str(files['t1w_uncorrected']),
    )
    return PreparedInput((ready.volume[None],), ready.affine, 'T1w')


def _t1w_connectivity(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    image = affine = matrix = None
    missing = []
    if files.get('t1w'):
        brain, box = _fsl_brain(files)
        image, affine = _on_declared_grid(*prepare_structural(brain, box), declared)
        image = image[None]
    else:
        missing.append('T1w')
    structural_only = declared.get('structural_only', False)
    if files.get('connectivity') and not structural_only:
        matrix = read_connectivity(_file(files, 'connectivity'), n_nodes=declared['n_nodes'])
    else:
        missing.append('connectivity')
    if image is None and matrix is None:
        raise MissingInputError(
            'the model needs a T1w image or a connectivity matrix of this scan; found neither.'
        )
    note = f'predicted without {missing[0]}' if missing else ''
    if structural_only:
        note += ', which these weights were not trained on'
    return PreparedInput((image, matrix), affine, declared['space'], note)


def _volumes(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    table = json.loads(_file(files, 'volumes').read_text('utf-8'))
    features = log_ratios(table['volumes_ml'], declared['features'])
    return PreparedInput((features.astype(np.float64),), None, declared['space'])


def _region_volumes(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    path = _file(files, 'region_volumes')
    table = json.loads(path.read_text('utf-8'))
    check_segmentation(declared, table['Segmentation'], str(path))
    features = log_ratios(table['VolumesML'], declared['features'])
    if table['SkullStripped']:  # what is left of the fluid depends on who stripped the image
        features[[INTRACRANIAL in name for name in declared['features']]] = np.nan
    return PreparedInput((features.astype(np.float64),), None, declared['space'])


def check_segmentation(declared: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    """Refuse volumes of another segmentation than the one a model was fitted on.

    Parameters
    ----------
    declared : mapping
        The ``input`` block of a bundle of kind ``region_volumes``.
    found : mapping
        ``Name``, ``Version`` and ``WeightsSHA256`` of the segmentation.
    source : str
        File or model that it belongs to, for the message.

    Raises
    ------
    BundleError
    """
    expected = declared['segmentation']
    if found['WeightsSHA256'] != expected['weights_sha256']:
        raise BundleError(
            f'{source}: found regions of {found["Name"]} {found["Version"]} with weights '
            f'{found["WeightsSHA256"][:12]}, expected those of {expected["name"]} with weights '
            f'{expected["weights_sha256"][:12]}, on which the model was fitted. Choose a model '
            'of this segmentation, or run the participant level again with the version of this '
            'program that the model came with.'
        )


_PREPARE: dict[str, Callable[[Mapping[str, Any], Files], PreparedInput]] = {
    'modulated_gm': _modulated_gm,
    'region_volumes': _region_volumes,
    't1w_brain': _t1w_brain,
    't1w_sfcn': _t1w_sfcn,
    't1w_clinical': _t1w_clinical,
    't1w_connectivity': _t1w_connectivity,
    'volumes': _volumes,
}
_ROLES = {
    'modulated_gm': ('gm_modulated',),
    'region_volumes': ('region_volumes', 'regions'),
    't1w_brain': ('t1w',),
    't1w_sfcn': ('t1w',),
    't1w_clinical': ('t1w_uncorrected', 'mask_native'),
    't1w_connectivity': ('t1w',),
    'volumes': ('volumes',),
}
