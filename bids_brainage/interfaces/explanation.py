"""Write the explanation maps of a prediction in template and native space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nipype.interfaces.base import isdefined

from bids_brainage.errors import MissingInputError
from bids_brainage.interfaces.derivatives import image_payload, write_image
from bids_brainage.interfaces.importance import sources_of
from bids_brainage.names import derivative_path, model_label, parse_name, side_file
from bids_brainage.outputs.files import write_json
from bids_brainage.preprocessing.image import load_image
from bids_brainage.preprocessing.normalise import (
    aligned_coordinates,
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

    Maps that do not stay in the output dataset are written beside the prediction, in native
    space only; their side files stay, for the report.

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
    spaces = _Spaces.of(inputs)
    saved = []
    folder = Path(inputs.prediction).parent
    for item in ({**m, 'file': str(folder / m['file'])} for m in maps):
        native, normal = _both_spaces(item, spaces)
        facts = {
            'Model': bundle.name,
            'WeightsSHA256': bundle.weights_sha256,
            'Method': item['method'],
            'Units': item['unit'],
            'RandomisedWeightsCorrelation': item['sanity'],
            'FractionOutsideBrain': item['outside_brain'],
            'Sources': sources_of(inputs),
        }
        native_file = _write(inputs, bundle, item, native, spaces.native_affine, 'T1w', facts)
        template_file = None
        if normal is not None and inputs.keep_maps:
            template_file = _write(inputs, bundle, item, normal, spaces.grid, DEFAULT_SPACE, facts)
        saved.append(SavedMap(native_file, template_file, item['unit']))
    return saved


@dataclass(frozen=True)
class _Spaces:
    """Grids of a scan's maps and the way between them; coordinates are computed once.

    Attributes
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Native brain.
    native_affine, grid : ndarray, shape (4, 4)
        Of the native image and of the template.
    shape : tuple of int
        Voxels of the template.
    transform : SpatialTransform or None
        Template → native; None for a scan that was not registered.
    """

    mask: np.ndarray
    native_affine: np.ndarray
    shape: tuple[int, ...]
    grid: np.ndarray
    transform: SpatialTransform | None

    @classmethod
    def of(cls, inputs: Any) -> _Spaces:
        """Read them from the inputs of the step."""
        mask, native_affine = load_image(Path(inputs.mask_native))
        template = cast('nib.spatialimages.SpatialImage', nib.load(inputs.template))
        transform = load_transform(Path(inputs.transform)) if isdefined(inputs.transform) else None
        grid = np.asarray(template.affine, dtype=float)
        return cls(mask > 0, native_affine, template.shape, grid, transform)

    @cached_property
    def in_native(self) -> np.ndarray:
        """Where every template voxel lies in the native image."""
        assert self.transform is not None
        return template_coordinates(self.transform, self.shape, self.grid)

    @cached_property
    def in_aligned(self) -> np.ndarray:
        """Where every template voxel lies in the image aligned by the affine alone."""
        assert self.transform is not None
        return aligned_coordinates(self.transform, self.shape, self.grid)

    @cached_property
    def in_template(self) -> np.ndarray:
        """The template voxels themselves."""
        return grid_points(self.shape, self.grid)


def _both_spaces(item: dict[str, Any], spaces: _Spaces) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the native map and, if the scan is registered, that deformed to the template."""
    data, affine = load_image(Path(item['file']))
    transform = spaces.transform
    if item['space'] == 'T1w':
        native = np.zeros(spaces.mask.shape, np.float32)
        order = 0 if item['regional'] else 1
        points = voxel_points(spaces.mask, spaces.native_affine)
        native[spaces.mask] = sample_image(data, affine, points, order=order)
        if transform is None:
            return native, None
        if item['regional']:  # the person's brain mask bounds it in both spaces
            data, affine = native, spaces.native_affine
        return native, pull(data, affine, spaces.in_native, spaces.shape, order=order)
    if transform is None:
        raise MissingInputError(
            f'the map {item["method"]} is in {item["space"]}, and this scan was not registered.'
        )
    to_map = transform.linear() if item['aligned'] else transform
    native = push_to_native(
        data, affine, to_map, spaces.mask.shape, spaces.native_affine, spaces.mask
    )
    # an aligned map is deformed, so that all maps of template space show the same place
    where = spaces.in_aligned if item['aligned'] else spaces.in_template
    return native, pull(data, affine, where, spaces.shape)


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
    written = target if inputs.keep_maps else scratch.with_name(target.name)
    write_image(written, payload)
    scratch.unlink()
    write_json(side_file(target), facts)
    return written
