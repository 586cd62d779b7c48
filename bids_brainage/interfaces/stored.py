"""Nipype interfaces that go on from the images of a scan that stand in the output dataset."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_brainage.interfaces.anatomical import (
    _read_json,
    _write_json,
    _write_quality,
)
from bids_brainage.preprocessing.image import load_image, save_image

NATIVE_MEASURES = (
    *('n_nonfinite', 'raised_by', 'mask_ml', 'border_cm2', 'mask_method', 'mp2rage'),
    *('header_size_error_percent', 'header_angle_degrees', 'header_no_form'),
    'header_foreign_unit',
    'prepared_elsewhere',
)
"""Measures of a scan that is not registered."""


class _QualityInputSpec(BaseInterfaceInputSpec):
    measures = traits.Dict(mandatory=True, desc='`Quality` of the side file')
    native = traits.Bool(False, usedefault=True, desc='only what needs no registration')
    thickness = traits.Bool(False, usedefault=True, desc='thick slices are worth a word')
    sloppy = traits.Bool(False, usedefault=True)


class _QualityOutputSpec(TraitedSpec):
    quality = File(exists=True, desc='measures and flags, JSON')


class RestoreQuality(SimpleInterface):
    """Raise the flags of an image again from the measures in its side file."""

    input_spec = _QualityInputSpec
    output_spec = _QualityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        measures = {
            name: math.nan if value is None else value
            for name, value in self.inputs.measures.items()
            if not self.inputs.native
            or name in NATIVE_MEASURES
            or (self.inputs.thickness and name == 'slice_thickness_mm')
        }
        self._results['quality'] = _write_quality(runtime.cwd, measures, self.inputs.sloppy)
        return runtime


class _ImagesInputSpec(BaseInterfaceInputSpec):
    to_template = File(exists=True, mandatory=True, desc='ITK composite')
    to_native = File(exists=True, mandatory=True, desc='ITK composite, the other way')
    mask_native = File(exists=True, mandatory=True)
    structures = File(exists=True, mandatory=True, desc='side file of the structure labels')
    regions = File(exists=True, mandatory=True, desc='side file of the region labels')
    template = File(exists=True, mandatory=True, desc='template on the grid of the derivatives')


class _ImagesOutputSpec(TraitedSpec):
    transform = File(exists=True, desc='SpatialTransform, template → native (.npz)')
    transform_affine = File(exists=True, desc='its affine alone')
    mask_affine = File(exists=True, desc='brain aligned with the template, not deformed')
    volumes = File(exists=True, desc='structure volumes, JSON')
    region_volumes = File(exists=True, desc='region volumes, JSON')


class RestoreImages(SimpleInterface):
    """Give models what the preprocessing keeps in other forms than they take.

    All of it is to the last digit what the preprocessing handed on when it made the files.
    """

    input_spec = _ImagesInputSpec
    output_spec = _ImagesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.itk_files import load_itk
        from bids_brainage.preprocessing.normalise import pull_mask
        from bids_brainage.preprocessing.transforms import save_transform

        folder = Path(runtime.cwd)
        transform = load_itk(Path(self.inputs.to_template), Path(self.inputs.to_native))
        linear = transform.linear()
        for name, found in (('transform', transform), ('transform_affine', linear)):
            save_transform(folder / f'{name}.npz', found)
            self._results[name] = str(folder / f'{name}.npz')
        template, grid = load_image(self.inputs.template)
        mask = pull_mask(*load_image(self.inputs.mask_native), linear, template > 0, grid)
        self._results['mask_affine'] = save_image(mask, grid, folder / 'mask_affine.nii', 'uint8')
        volumes = {'volumes_ml': _read_json(self.inputs.structures)['VolumesML']}
        self._results['volumes'] = _write_json(folder / 'volumes.json', volumes)
        regions = _read_json(self.inputs.regions)
        self._results['region_volumes'] = _write_json(folder / 'region_volumes.json', regions)
        return runtime


class _AlignInputSpec(BaseInterfaceInputSpec):
    structures = File(exists=True, mandatory=True, desc='labels in template space')
    transform = File(exists=True, mandatory=True, desc='SpatialTransform (.npz)')


class _AlignOutputSpec(TraitedSpec):
    aligned = File(exists=True, desc='labels on the image that is aligned, but not deformed')


class AlignStructures(SimpleInterface):
    """Lay structure labels of template space on the image aligned by the affine alone."""

    input_spec = _AlignInputSpec
    output_spec = _AlignOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.normalise import align_labels
        from bids_brainage.preprocessing.transforms import load_transform

        labels, grid = load_image(self.inputs.structures)
        found = align_labels(labels, grid, load_transform(Path(self.inputs.transform)))
        path = Path(runtime.cwd) / 'structures_affine.nii'
        self._results['aligned'] = save_image(found, grid, path, 'uint8')
        return runtime
