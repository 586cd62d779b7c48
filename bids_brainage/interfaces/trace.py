"""Nipype interface that says in side files what a product was made from."""

from __future__ import annotations

import json
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


class _TraceInputSpec(BaseInterfaceInputSpec):
    meta = traits.Dict({}, usedefault=True, desc='what the side file says already')
    made_from = traits.Dict(mandatory=True, desc='all but the hash of the input')
    source = File(exists=True, desc='input that was read, if `facts` do not tell its hash')
    memo = traits.Str(nohash=True, desc='hashes of input files between runs, for `source`')
    facts = File(exists=True, desc='facts of the image that was read, JSON')
    quality = File(exists=True, desc='measures and flags of the image, JSON')
    provenance = traits.Dict({}, usedefault=True, desc='options and versions')
    after = traits.List(traits.Any, desc='what has to be there before the side file says so')


class _TraceOutputSpec(TraitedSpec):
    meta = traits.Dict(desc='for the side files')


class TraceSource(SimpleInterface):
    """Add to a side file what its product was made from, and with which options."""

    input_spec = _TraceInputSpec
    output_spec = _TraceOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.outputs.provenance import MADE_FROM, remembered_sha256

        if isdefined(self.inputs.facts):
            digest = json.loads(Path(self.inputs.facts).read_text('utf-8'))['sha256']
        else:
            digest = remembered_sha256(self.inputs.source, self.inputs.memo)
        meta = {**self.inputs.meta, **self.inputs.provenance, 'InputSHA256': digest}
        meta[MADE_FROM] = {**self.inputs.made_from, 'InputSHA256': digest}
        if isdefined(self.inputs.quality):
            quality = json.loads(Path(self.inputs.quality).read_text('utf-8'))
            meta['Quality'] = quality['measures']
        self._results['meta'] = meta
        return runtime
