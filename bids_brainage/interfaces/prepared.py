"""Nipype interface that takes what another program prepared of a T1w image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, traits

from bids_brainage.interfaces.anatomical import _BrainOutputSpec, _read_json, _save_mask
from bids_brainage.preprocessing.image import load_mask


class _TakeInputSpec(BaseInterfaceInputSpec):
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    given = File(exists=True, mandatory=True, desc='brain mask that another program found')
    program = traits.Str(mandatory=True, desc='name of the program')


class TakeBrain(SimpleInterface):
    """Take the brain mask that another program found, on the grid of the image."""

    input_spec = _TakeInputSpec
    output_spec = _BrainOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        mask, affine = load_mask(Path(self.inputs.given))
        source = _read_json(self.inputs.facts)['source']
        self._results |= _save_mask(
            Path(runtime.cwd), mask, affine, self.inputs.program, source, prepared_elsewhere=1.0
        )
        return runtime
