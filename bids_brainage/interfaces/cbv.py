"""Nipype interfaces that give System B its map of cerebral blood volume (CBV)."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    CommandLine,
    CommandLineInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_brainage.preprocessing.image import load_image, save_image


class _CbvOutputSpec(TraitedSpec):
    cbv = File(exists=True, desc='map in template space, brain only')


class _WarpCbvInputSpec(BaseInterfaceInputSpec):
    cbv = File(exists=True, mandatory=True, desc='map as it was given')
    mask = File(exists=True, mandatory=True, desc='brain of the person in template space')
    transform = File(exists=True, desc='template → native (.npz); unset in template space')


class WarpCbv(SimpleInterface):
    """Bring a given map onto the template grid, or refuse it with a reason."""

    input_spec = _WarpCbvInputSpec
    output_spec = _CbvOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nib
        import numpy as np

        from bids_brainage.inputs.cbv import cbv_on_template
        from bids_brainage.preprocessing.transforms import load_transform

        image: Any = nib.as_closest_canonical(nib.load(self.inputs.cbv))
        data = np.asarray(image.dataobj, np.float32).reshape(image.shape[:3])
        mask, grid = load_image(self.inputs.mask)
        given = self.inputs.transform
        warped = cbv_on_template(
            data,
            np.asarray(image.affine, float),
            mask > 0,
            grid,
            load_transform(Path(given)) if isdefined(given) else None,
            source=str(self.inputs.cbv),
        )
        self._results['cbv'] = save_image(warped, grid, Path(runtime.cwd) / 'cbv.nii.gz')
        return runtime


class _GenerateInputSpec(CommandLineInputSpec):
    weights = File(exists=True, mandatory=True, argstr='%s', position=0)
    t1w = File(exists=True, mandatory=True, argstr='%s', position=1, desc='template space, 1 mm')
    mask = File(exists=True, mandatory=True, argstr='%s', position=2)
    out_file = traits.Str('cbv.nii.gz', usedefault=True, argstr='%s', position=3)
    weights_sha256 = traits.Str(mandatory=True, desc='makes new weights a new result')
    device = traits.Str('auto', usedefault=True, argstr='--device %s', nohash=True)
    threads = traits.Int(1, usedefault=True, argstr='--threads %d', nohash=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='scheduling hint')


class GenerateCbv(CommandLine):
    """Generate the map of one scan in a process of its own."""

    _cmd = f'{shlex.quote(sys.executable)} -m bids_brainage.inference.generate'
    input_spec = _GenerateInputSpec
    output_spec = _CbvOutputSpec

    def _list_outputs(self) -> dict[str, Any]:
        return {'cbv': str(Path(self.inputs.out_file).resolve())}
