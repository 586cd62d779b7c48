"""Nipype interface that measures the regions of a brain."""

from __future__ import annotations

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

from bids_brainage.interfaces.anatomical import _load, _read_json, _save, _write_json


class _RegionsInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='RAS+ float32 image, bias field left in')
    mask = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    weights_sha256 = traits.Str(mandatory=True, desc='makes new weights a new result')
    threads = traits.Int(1, usedefault=True, nohash=True)


class _RegionsOutputSpec(TraitedSpec):
    regions = File(exists=True, desc='region labels, own space, 2 mm')
    region_volumes = File(exists=True, desc='what `region_facts` says, JSON')
    region_facts = traits.Dict(desc='volumes, labels and the network, for the side file')


class MeasureRegions(SimpleInterface):
    """Find the regions of the brain and their volumes with the packaged network."""

    input_spec = _RegionsInputSpec
    output_spec = _RegionsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.segmentation.measure import measure
        from bids_brainage.segmentation.regions import load_regions
        from bids_brainage.segmentation.weights import load_networks, segmentation_facts

        data, affine = _load(self.inputs.t1w)
        mask = _load(self.inputs.mask)[0] > 0
        found = measure(data, affine, mask, load_networks(threads=self.inputs.threads))
        facts = {
            'VolumesML': found.volumes_ml,
            'LabelMap': {str(region.index): region.name for region in load_regions()},
            'Segmentation': segmentation_facts(),
            'SkullStripped': _read_json(self.inputs.facts)['skull_stripped'],
        }
        folder = Path(runtime.cwd)
        self._results['regions'] = _save(
            found.labels, found.affine, folder / 'regions.nii.gz', 'uint8'
        )
        self._results['region_volumes'] = _write_json(folder / 'region_volumes.json', facts)
        self._results['region_facts'] = facts
        return runtime


class _TableInputSpec(BaseInterfaceInputSpec):
    region_facts = traits.Dict(mandatory=True, desc='of `MeasureRegions`')
    age = traits.Float(desc='years, where it is known exactly')
    sex = traits.Str()


class _TableOutputSpec(TraitedSpec):
    table = File(exists=True, desc='volume, share and percentile of each structure, TSV')
    facts = traits.Dict(desc='its side file')


class TabulateVolumes(SimpleInterface):
    """Lay the volumes of the regions out as a table, beside those of people of the same age."""

    _always_run = True  # the curves are no input
    input_spec = _TableInputSpec
    output_spec = _TableOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.outputs.files import write_tsv
        from bids_brainage.outputs.tables import column_names, data_dictionary
        from bids_brainage.segmentation import norms

        found = self.inputs.region_facts
        age = self.inputs.age if isdefined(self.inputs.age) else None
        sex = self.inputs.sex if isdefined(self.inputs.sex) else None
        reason = norms.why_not(found['Segmentation'], age, skull_stripped=found['SkullStripped'])
        rows = norms.volume_rows(
            found['VolumesML'], age, sex, known=not reason, whole=not found['SkullStripped']
        )
        table = Path(runtime.cwd) / 'volumes.tsv'
        write_tsv(table, rows, column_names('volumes'))
        columns = data_dictionary('volumes')
        columns['region']['Levels'] = {s.name: s.title for s in norms.load_structures()}
        self._results['table'] = str(table)
        self._results['facts'] = {
            **columns,
            'Segmentation': found['Segmentation'],
            'SkullStripped': found['SkullStripped'],
            'WithoutPercentiles': reason,
        }
        return runtime
