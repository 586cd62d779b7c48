"""The table of volumes says what it was made from, to the last digit."""

import pytest

from bids_brainage.outputs.files import read_json
from bids_brainage.segmentation.norms import load_curves
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.table import write_table
from bids_brainage.tsv import read_tsv

SCAN = {'age': 60.0, 'age_censored': False, 'sex': 'F', 'source': 'bids:raw:sub-01_T1w.nii.gz'}
FOUND = {
    'VolumesML': {region.name: 20.123456789 for region in load_regions()},
    'SkullStripped': False,
    'Segmentation': {'WeightsSHA256': load_curves()['weights_sha256']},
    'LabelMap': {'1': 'a'},
    'MadeFrom': {'InputSHA256': 'x'},
}


def test_side_file_holds_the_measurement(tmp_path):
    write_table(tmp_path / 'sub-01_volumes.tsv', FOUND, SCAN)
    side = read_json(tmp_path / 'sub-01_volumes.json')
    for name in ('VolumesML', 'SkullStripped', 'Segmentation', 'MadeFrom'):
        assert side[name] == FOUND[name]
    assert 'LabelMap' not in side
    assert side['Sources'] == [SCAN['source']]
    assert side['WithoutPercentiles'] == ''


def test_share_and_percentile_of_a_region(tmp_path):
    write_table(tmp_path / 'sub-01_volumes.tsv', FOUND, SCAN)
    rows = {row['region']: row for row in read_tsv(tmp_path / 'sub-01_volumes.tsv')}
    row = rows['lateral_ventricle']
    whole = max(float(row['volume']) for row in rows.values())
    assert float(row['volume']) == 20.1235
    assert float(row['share']) == pytest.approx(20.123456789 / whole, rel=1e-5)
    assert 0 <= float(row['percentile']) <= 100


def test_age_that_is_only_a_lower_limit_has_no_percentile(tmp_path):
    write_table(tmp_path / 'sub-01_volumes.tsv', FOUND, {**SCAN, 'age_censored': True})
    rows = read_tsv(tmp_path / 'sub-01_volumes.tsv')
    assert {row['percentile'] for row in rows} == {'n/a'}
