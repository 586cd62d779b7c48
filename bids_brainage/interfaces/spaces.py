"""Nipype interfaces that bring the images of a scan into further spaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)


class _AlignInputSpec(BaseInterfaceInputSpec):
    fixed = File(exists=True, mandatory=True, desc='skull-stripped template of the space')
    fixed_mask = File(exists=True, mandatory=True)
    moving = File(exists=True, mandatory=True, desc='template that scans are registered to')
    moving_mask = File(exists=True, mandatory=True)
    sloppy = traits.Bool(False, usedefault=True)
    threads = traits.Int(1, usedefault=True, nohash=True)


class _AlignOutputSpec(TraitedSpec):
    transform = File(exists=True, desc='SpatialTransform, points of the space → template (.npz)')


class AlignTemplates(SimpleInterface):
    """Register the template of the scans to that of another space, once for all scans."""

    input_spec = _AlignInputSpec
    output_spec = _AlignOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.image import load_image
        from bids_brainage.preprocessing.registration import register
        from bids_brainage.preprocessing.transforms import save_transform

        masks = [load_image(p)[0] > 0 for p in (self.inputs.fixed_mask, self.inputs.moving_mask)]
        fixed, fixed_affine = load_image(self.inputs.fixed)
        moving, moving_affine = load_image(self.inputs.moving)
        transform, _ = register(
            fixed * masks[0],
            masks[0],
            fixed_affine,
            moving * masks[1],
            masks[1],
            moving_affine,
            threads=self.inputs.threads,
            sloppy=self.inputs.sloppy,
        )
        path = Path(runtime.cwd) / 'transform.npz'
        save_transform(path, transform)
        self._results['transform'] = str(path)
        return runtime


class _RestoreInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='T1w image, as in the dataset or prepared')
    mask = File(exists=True, mandatory=True, desc='its brain mask in the output dataset')
    corrected = traits.Bool(False, usedefault=True, desc='the image has no bias field')


class _RestoreOutputSpec(TraitedSpec):
    t1w = File(exists=True, desc='bias-corrected brain, native')


class RestoreBrain(SimpleInterface):
    """Correct a T1w image again within the brain mask that stands in the output dataset."""

    input_spec = _RestoreInputSpec
    output_spec = _RestoreOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.bias import correct_bias
        from bids_brainage.preprocessing.image import load_canonical, load_image, save_image

        data, affine, _ = load_canonical(Path(self.inputs.t1w))
        mask = load_image(self.inputs.mask)[0] > 0
        if not self.inputs.corrected:
            data, _ = correct_bias(data, affine, mask)
        path = Path(runtime.cwd) / 't1w.nii'
        self._results['t1w'] = save_image(data * mask, affine, path)
        return runtime


class _ResampleInputSpec(BaseInterfaceInputSpec):
    images = traits.Dict(mandatory=True, desc='name of an image → what it is made from')
    t1w = File(exists=True, mandatory=True, desc='bias-corrected brain, native')
    mask = File(exists=True, mandatory=True, desc='its brain mask')
    to_template = File(exists=True, mandatory=True, desc='ITK composite')
    to_native = File(exists=True, mandatory=True, desc='ITK composite, the other way')
    brain = File(exists=True, desc='brain mask on the grid of the space; unset in native space')
    between = File(exists=True, desc='points of the space → template; unset for the template')


class _ResampleOutputSpec(TraitedSpec):
    written = traits.List(traits.Str(), desc='files in the output dataset')


class ResampleToSpace(SimpleInterface):
    """Write the images of a scan in one space, with their side files.

    The T1w image, its mask and the explanation maps are interpolated once, from the native
    grid; tissue maps come from the grid of the template.
    """

    input_spec = _ResampleInputSpec
    output_spec = _ResampleOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.preprocessing.image import load_image
        from bids_brainage.preprocessing.itk_files import load_itk
        from bids_brainage.preprocessing.spaces import sample_native, sample_space
        from bids_brainage.preprocessing.transforms import load_transform

        inputs = self.inputs
        transform = load_itk(Path(inputs.to_template), Path(inputs.to_native))
        mask, affine = load_image(inputs.mask)
        if isdefined(inputs.brain):
            between = load_transform(Path(inputs.between)) if isdefined(inputs.between) else None
            target, grid = load_image(inputs.brain)
            sampling = sample_space(target > 0, grid, transform, between)
        else:
            sampling = sample_native(mask > 0, affine, transform)
        brain = sampling.pull((mask > 0).astype(np.float32), affine, native=True) > 0.5
        written: list[str] = []
        for path, made in inputs.images.items():
            data = brain
            if made['source'] != inputs.mask:
                stored = load_image(made['source'] or inputs.t1w)
                order = 0 if made['labels'] else 1
                data = sampling.pull(*stored, native=made['native'], order=order) * brain
            written += _write(Path(path), data, sampling.affine, made, Path(runtime.cwd))
        self._results['written'] = written
        return runtime


def _write(
    path: Path, data: Any, affine: Any, made: Mapping[str, Any], scratch: Path
) -> list[str]:
    """Write one image and its side file into the output dataset."""
    from bids_brainage.interfaces.derivatives import image_payload, write_image
    from bids_brainage.names import parse_name, side_file
    from bids_brainage.outputs.files import write_json
    from bids_brainage.preprocessing.image import save_image

    entities = parse_name(path)
    temporary = Path(save_image(data, affine, scratch / 'image.nii'))
    payload, _, _ = image_payload(
        temporary, suffix=entities['suffix'], space=entities.get('space')
    )
    temporary.unlink()
    write_image(path, payload)
    write_json(side_file(path), made['side'])
    path.touch()  # newer than its sources also where the content stayed
    return [str(path), str(side_file(path))]
