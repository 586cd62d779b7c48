"""From the derivatives of one scan to exactly the arrays that a model takes.

What a model takes stands in the ``input`` block of its bundle; each ``kind`` has one function
here, which its record in `bids_brainage.inputs.kinds` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_brainage.dataset.header import SAME_GRID_MM
from bids_brainage.errors import BundleError, MissingInputError
from bids_brainage.inputs.intensity import scale_by_top_percent
from bids_brainage.inputs.kinds import Files, PreparedInput
from bids_brainage.inputs.volumes import INTRACRANIAL, log_ratios
from bids_brainage.preprocessing.image import load_canonical
from bids_brainage.preprocessing.resample import onto_grid

FSL_GRID = ((182, 218, 182), (-91.0, -126.0, -72.0))
"""Shape and first voxel centre (RAS+ mm) of the usual 1 mm MNI152 box."""

TOP_PERCENT = 'top_1_percent_mean'
"""``input.normalisation`` of images that are divided by the mean of their brightest voxels."""


def find_file(files: Files, role: str) -> Path:
    """Return the file of a role.

    Raises
    ------
    MissingInputError
        If it is not there.
    """
    path = files.get(role)
    if path is None or not Path(path).is_file():
        raise MissingInputError(
            f'the model needs the derivative {role!r} of this scan, which is not there'
            f'{f" ({path})" if path else ""}. Run the participant level again.'
        )
    return Path(path)


def load_image(files: Files, role: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the image of a role in RAS+ float32, with its affine.

    Raises
    ------
    MissingInputError
        If it is not there.
    """
    image = nib.as_closest_canonical(nib.load(find_file(files, role)))
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=float)


def _target(declared: Mapping[str, Any]) -> tuple[tuple[int, ...], np.ndarray]:
    if declared['affine'] is None:
        raise BundleError(
            'the bundle names no affine for its input grid, so images cannot be brought onto '
            'it; expected `input.affine` in metadata.json.'
        )
    return tuple(declared['shape']), np.asarray(declared['affine'], dtype=float)


def modulated_gm(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Grey matter of System A, halved as published or resampled."""
    data, affine = load_image(files, 'gm_modulated')
    shape, target = _target(declared)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(np.linalg.norm(target[:3, :3], axis=0), 2 * size):
        from bids_brainage.inputs.reduce import reduce_half

        # the published recipe: the box at full resolution (odd), then blocks of 2 × 2 × 2
        box = target.copy()
        box[:3, :3] /= 2
        box[:3, 3] -= box[:3, :3] @ np.array([0.5, 0.5, 0.5])
        full = onto_grid(data, affine, tuple(2 * n + 1 for n in shape), box)
        volume, target = reduce_half(full, box)
    else:
        volume = onto_grid(data, affine, shape, target)
    return PreparedInput((volume[None],), target, declared['space'])


def t1w_brain(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain of System B: divided by the mean of its brightest voxels."""
    data, affine = load_image(files, 't1w')
    shape, target = _target(declared)
    volume = scale_by_top_percent(onto_grid(data, affine, shape, target), source=str(files['t1w']))
    return PreparedInput((volume[None],), target, declared['space'])


def _fsl_brain(files: Files) -> tuple[np.ndarray, np.ndarray]:
    data, affine = load_image(files, 't1w')
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


def t1w_sfcn(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain of SFCN: divided by its mean, cropped."""
    from bids_brainage.inputs.sfcn import prepare_sfcn

    volume, affine = _on_declared_grid(*prepare_sfcn(*_fsl_brain(files)), declared)
    return PreparedInput((volume[None],), affine, declared['space'])


def t1w_synthba(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain of SynthBA: 1.4 mm, between 0 and 1."""
    from bids_brainage.inputs.published import prepare_synthba

    volume, affine = _on_declared_grid(*prepare_synthba(*_fsl_brain(files)), declared)
    return PreparedInput((volume[None],), affine, declared['space'])


def t1w_pyment(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain of pyment: cropped, white matter at 110 of 255."""
    from bids_brainage.inputs.published import prepare_pyment

    volume, affine = _on_declared_grid(*prepare_pyment(*_fsl_brain(files)), declared)
    return PreparedInput((volume[None],), affine, declared['space'])


def t1w_brainagenext(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain of BrainAgeNeXt, in the middle of its grid: z-scored."""
    from bids_brainage.inputs.published import prepare_brainagenext

    volume, affine = prepare_brainagenext(*_fsl_brain(files))
    shape = tuple(declared['shape'])
    if volume.shape != shape:  # another box about the middle of the brain
        target = affine.copy()
        target[:3, 3] += affine[:3, :3] @ ((np.array(volume.shape) - np.array(shape)) // 2)
        volume, affine = onto_grid(volume, affine, shape, target), target
    return PreparedInput((volume[None],), affine, declared['space'])


def t1w_clinical(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Brain of System C in the person's own space."""
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
    from bids_brainage.inputs.clinical import synthetic_slices

    return [
        _clinical(declared, files, data, affine)
        for data, affine in synthetic_slices(*_native_brain(files))
    ]


def _native_brain(files: Files) -> tuple[np.ndarray, np.ndarray]:
    # the check leaves an image that went through it as it is
    data, affine, _ = load_canonical(find_file(files, 't1w_uncorrected'))
    mask, _ = load_image(files, 'mask_native')
    return data * (mask > 0), affine


def _clinical(
    declared: Mapping[str, Any], files: Files, data: np.ndarray, affine: np.ndarray
) -> PreparedInput:
    from bids_brainage.inputs.clinical import prepare_clinical

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


def t1w_connectivity(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Aligned brain and connectivity of System D, or the one that is there.

    The brain is scaled as published, or as for System B where the bundle says so.
    """
    from bids_brainage.inputs.connectivity import prepare_structural, read_connectivity

    image = affine = matrix = None
    missing = []
    if files.get('t1w') and declared['normalisation'] == TOP_PERCENT:
        scaled = t1w_brain(declared, files)
        image, affine = scaled.arrays[0], scaled.affine
    elif files.get('t1w'):
        brain, box = _fsl_brain(files)
        image, affine = _on_declared_grid(*prepare_structural(brain, box), declared)
        image = image[None]
    else:
        missing.append('T1w')
    structural_only = declared.get('structural_only', False)
    if files.get('connectivity') and not structural_only:
        matrix = read_connectivity(find_file(files, 'connectivity'), n_nodes=declared['n_nodes'])
    elif files.get('connectivity') or not structural_only:
        missing.append('connectivity')
    if image is None and matrix is None:
        raise MissingInputError(
            'the model needs a T1w image or a connectivity matrix of this scan; found neither.'
        )
    note = f'predicted without {missing[0]}' if missing else ''
    if structural_only and note:
        note += ', which these weights were not trained on'
    return PreparedInput((image, matrix), affine, declared['space'], note)


def volumes(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Log ratios of the structures of the atlas."""
    table = json.loads(find_file(files, 'volumes').read_text('utf-8'))
    features = log_ratios(table['volumes_ml'], declared['features'])
    return PreparedInput((features.astype(np.float64),), None, declared['space'])


def region_volumes(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Log ratios of the regions of the segmentation network."""
    path = find_file(files, 'region_volumes')
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
