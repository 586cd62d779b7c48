"""The table of volumes and its side file."""

import json
from pathlib import Path

import pytest

from bids_brainage.interfaces.derivatives import DerivativesDataSink
from bids_brainage.interfaces.regions import TabulateVolumes
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import segmentation_facts
from bids_brainage.tsv import read_tsv

FACTS = {
    'VolumesML': {region.name: 10.0 + region.index for region in load_regions()},
    'Segmentation': segmentation_facts(),
    'SkullStripped': False,
}


def tabulate(folder, monkeypatch, facts, **person):
    monkeypatch.chdir(folder)
    found = TabulateVolumes(region_facts=facts, **person).run().outputs
    sink = DerivativesDataSink(base_directory=str(folder), suffix='volumes')
    sink.inputs.in_file, sink.inputs.meta_dict = found.table, found.facts
    sink.inputs.source_file = '/data/sub-01/ses-1/anat/sub-01_ses-1_run-2_T1w.nii.gz'
    path = Path(sink.run().outputs.out_file)
    assert path == folder / 'sub-01/ses-1/anat/sub-01_ses-1_run-2_volumes.tsv'
    return {row['region']: row for row in read_tsv(path)}, json.loads(
        path.with_suffix('.json').read_text('utf-8')
    )


def test_table_has_volume_share_and_percentile_of_every_region(tmp_path, monkeypatch):
    rows, side = tabulate(tmp_path, monkeypatch, FACTS, age=60.0, sex='F')
    whole = sum(FACTS['VolumesML'].values())
    for name, volume in FACTS['VolumesML'].items():
        assert float(rows[name]['volume']) == pytest.approx(volume)
        assert float(rows[name]['share']) == pytest.approx(volume / whole, abs=1e-6)
        assert 0 <= float(rows[name]['percentile']) <= 100
    assert rows['intracranial']['percentile'] == 'n/a'
    assert side['volume']['Units'] == 'mL'
    assert side['region']['Levels']['white_matter'] == 'Cerebral white matter'
    assert set(side['region']['Levels']) == set(rows)
    assert side['WithoutPercentiles'] == ''
    assert side['Segmentation'] == segmentation_facts()


@pytest.mark.parametrize(
    ('change', 'person', 'reason'),
    [
        ({}, {}, 'the age is not known'),
        ({}, {'age': 8.0}, 'outside the ages of the curves'),
        ({'SkullStripped': True}, {'age': 60.0}, 'without skull'),
        ({'Segmentation': {'WeightsSHA256': 'f' * 64}}, {'age': 60.0}, 'another version'),
    ],
)
def test_table_without_percentiles_says_why(tmp_path, monkeypatch, change, person, reason):
    rows, side = tabulate(tmp_path, monkeypatch, {**FACTS, **change}, **person)
    assert reason in side['WithoutPercentiles']
    assert {row['percentile'] for row in rows.values()} == {'n/a'}
    assert float(rows['brain']['volume']) > 0
