"""Nipype interfaces that measure the regions of a brain and write the table of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_brainage.interfaces.anatomical import _read_json, _write_json
from bids_brainage.preprocessing.image import load_image, save_image


class _RegionsInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='RAS+ float32 image, bias field left in')
    mask = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    weights_sha256 = traits.Str(mandatory=True, desc='makes new weights a new result')
    threads = traits.Int(1, usedefault=True, nohash=True)
    device = traits.Str('cpu', usedefault=True, nohash=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='scheduling hint')


class _RegionsOutputSpec(TraitedSpec):
    regions = File(exists=True, desc='region labels, own space, 2 mm')
    region_volumes = File(exists=True, desc='what `region_facts` says, JSON')
    region_facts = traits.Dict(desc='volumes, labels and the network, for the side file')


class MeasureRegions(SimpleInterface):
    """Find the regions of the brain and their volumes with the packaged network."""

    input_spec = _RegionsInputSpec
    output_spec = _RegionsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.models.devices import careful_with_gpus, choose_device
        from bids_brainage.segmentation.measure import measure
        from bids_brainage.segmentation.regions import load_regions
        from bids_brainage.segmentation.weights import load_networks, segmentation_facts

        data, affine = load_image(self.inputs.t1w)
        mask = load_image(self.inputs.mask)[0] > 0
        with careful_with_gpus('the regions of the brain'):
            where = choose_device(self.inputs.device)
            networks = load_networks(threads=self.inputs.threads, device=where)
            found = measure(data, affine, mask, networks)
        facts = {
            'VolumesML': found.volumes_ml,
            'LabelMap': {str(region.index): region.name for region in load_regions()},
            'Segmentation': segmentation_facts(),
            'SkullStripped': _read_json(self.inputs.facts)['skull_stripped'],
        }
        folder = Path(runtime.cwd)
        self._results['regions'] = save_image(
            found.labels, found.affine, folder / 'regions.nii.gz', 'uint8'
        )
        self._results['region_volumes'] = _write_json(folder / 'region_volumes.json', facts)
        self._results['region_facts'] = facts
        return runtime


class _VolumesInputSpec(BaseInterfaceInputSpec):
    region_facts = traits.Dict(mandatory=True, desc='of `MeasureRegions`')
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    table = traits.Str(mandatory=True, desc='path in the output dataset')
    scan = traits.Dict(mandatory=True, desc='columns that the dataset gives')
    sources = traits.List(traits.Str, mandatory=True, desc='BIDS URIs of all that was read')
    made_from = traits.Dict(mandatory=True, desc='all but the hash of the image')


class _VolumesOutputSpec(TraitedSpec):
    table = File(exists=True)


class SaveVolumes(SimpleInterface):
    """Write the table of volumes of a scan whose images do not stay in the output dataset."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _VolumesInputSpec
    output_spec = _VolumesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.outputs.provenance import MADE_FROM
        from bids_brainage.segmentation.table import write_table

        digest = _read_json(self.inputs.facts)['sha256']
        found = {
            **self.inputs.region_facts,
            'Sources': list(self.inputs.sources),
            MADE_FROM: {**self.inputs.made_from, 'InputSHA256': digest},
        }
        write_table(Path(self.inputs.table), found, self.inputs.scan)
        self._results['table'] = self.inputs.table
        return runtime
