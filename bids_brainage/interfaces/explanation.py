"""Write the explanation maps of a prediction in template and native space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import isdefined

from bids_brainage.errors import MissingInputError
from bids_brainage.interfaces.derivatives import image_payload, write_image
from bids_brainage.names import derivative_path, model_label, parse_name, side_file
from bids_brainage.outputs.files import write_json
from bids_brainage.preprocessing.image import load_image
from bids_brainage.preprocessing.normalise import (
    pull,
    push_to_native,
    template_coordinates,
)
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.preprocessing.transforms import (
    SpatialTransform,
    grid_points,
    load_transform,
    sample_image,
    voxel_points,
)


@dataclass(frozen=True)
class SavedMap:
    """Files of one map; ``template`` is None if no transform was there."""

    native: Path
    template: Path | None
    unit: str


def save_maps(inputs: Any, maps: list[dict[str, Any]], bundle: Any) -> list[SavedMap]:
    """Resample each map into both spaces and write it with its side file.

    Parameters
    ----------
    inputs : traits
        Inputs of `bids_brainage.interfaces.prediction.SavePrediction`.
    maps : list of dict
        ``maps`` of ``prediction.json``.
    bundle : Bundle

    Returns
    -------
    list of SavedMap
    """
    if not maps:
        return []
    mask, native_affine = load_image(Path(inputs.mask_native))
    mask = mask > 0
    transform = load_transform(Path(inputs.transform)) if isdefined(inputs.transform) else None
    saved = []
    folder = Path(inputs.prediction).parent
    for item in ({**m, 'file': str(folder / m['file'])} for m in maps):
        data, affine = load_image(Path(item['file']))
        native, normal, grid = _both_spaces(inputs, item, data, affine, mask, transform)
        facts = {
            'Model': bundle.name,
            'WeightsSHA256': bundle.weights_sha256,
            'Method': item['method'],
            'Units': item['unit'],
            'RandomisedWeightsCorrelation': item['sanity'],
            'FractionOutsideBrain': item['outside_brain'],
            'Sources': [inputs.scan['source']],
        }
        native_file = _write(inputs, bundle, item, native, native_affine, 'T1w', facts)
        template_file = None
        if normal is not None:
            template_file = _write(inputs, bundle, item, normal, grid, DEFAULT_SPACE, facts)
        saved.append(SavedMap(native_file, template_file, item['unit']))
    return saved


def _both_spaces(
    inputs: Any,
    item: dict[str, Any],
    data: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    transform: SpatialTransform | None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return the native map, that in template space if there is a transform, and its grid."""
    native_affine = load_image(Path(inputs.mask_native))[1]
    template, grid = load_image(Path(inputs.template))
    if item['space'] == 'T1w':
        native = np.zeros(mask.shape, np.float32)
        order = 0 if item['regional'] else 1
        native[mask] = sample_image(data, affine, voxel_points(mask, native_affine), order=order)
        if transform is None:
            return native, None, grid
        where = template_coordinates(transform, template.shape, grid)
        if item['regional']:  # the person's brain mask bounds it in both spaces
            data, affine = native, native_affine
        return native, pull(data, affine, where, template.shape, order=order), grid
    if transform is None:
        raise MissingInputError(
            f'the map {item["method"]} is in {item["space"]}, and this scan was not registered.'
        )
    native = push_to_native(data, affine, transform, mask.shape, native_affine, mask)
    normal = sample_image(data, affine, grid_points(template.shape, grid))
    return native, normal.reshape(template.shape), grid


def _write(
    inputs: Any,
    bundle: Any,
    item: dict[str, Any],
    data: np.ndarray,
    affine: np.ndarray,
    space: str,
    facts: dict[str, Any],
) -> Path:
    entities = {
        **parse_name(inputs.source_file),
        'space': space,
        'model': bundle.label,
        'desc': model_label(item['method']),
        'suffix': 'saliency',
        'extension': '.nii.gz',
    }
    if space != 'T1w':
        entities['res'] = '1'
        facts = {**facts, 'Resolution': '1 x 1 x 1 mm'}
    target = Path(inputs.base_directory) / derivative_path(entities, entities['datatype'])
    scratch = Path(item['file']).with_name(f'{space}_{item["method"]}.nii')
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), scratch)
    payload, _, _ = image_payload(scratch, suffix='saliency', space=space)
    write_image(target, payload)
    scratch.unlink()
    write_json(side_file(target), facts)
    return target
