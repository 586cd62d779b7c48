"""Nipype interfaces that take what another program prepared of a T1w image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, traits

from bids_brainage.interfaces.anatomical import (
    _BiasOutputSpec,
    _BrainOutputSpec,
    _read_json,
    _save_mask,
)
from bids_brainage.preprocessing.image import load_canonical, load_mask, save_image


class _TakeBrainInputSpec(BaseInterfaceInputSpec):
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    given = File(exists=True, mandatory=True, desc='brain mask that another program found')
    program = traits.Str(mandatory=True, desc='name of the program')


class TakeBrain(SimpleInterface):
    """Take the brain mask that another program found, on the grid of the image."""

    input_spec = _TakeBrainInputSpec
    output_spec = _BrainOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        mask, affine = load_mask(Path(self.inputs.given))
        source = _read_json(self.inputs.facts)['source']
        self._results |= _save_mask(
            Path(runtime.cwd), mask, affine, self.inputs.program, source, prepared_elsewhere=1.0
        )
        return runtime


class _TakeImageInputSpec(BaseInterfaceInputSpec):
    given = File(exists=True, mandatory=True, desc='image that another program corrected')


class TakeImage(SimpleInterface):
    """Take the image whose bias field another program has removed, in RAS+ order."""

    input_spec = _TakeImageInputSpec
    output_spec = _BiasOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        data, affine, _ = load_canonical(Path(self.inputs.given))
        self._results['t1w'] = save_image(data, affine, Path(runtime.cwd) / 't1w_clean.nii')
        return runtime
