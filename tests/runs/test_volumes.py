"""The table of volumes follows what the dataset says of the person."""

from pathlib import Path

import pytest

from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json, write_json
from bids_brainage.runs.volumes import write_volumes
from bids_brainage.segmentation.norms import load_curves
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.tsv import read_tsv
from bids_brainage.workflows.images import image_path, volumes_path


def scan_of(age, *, censored=False):
    path = Path('sub-01/anat/sub-01_T1w.nii.gz')
    given = Age(age, censored=censored)
    return Scan(path, str(path), '01', None, None, {'sub': '01'}, 'T1w', 'anat', given, 'F')


@pytest.fixture
def out(tmp_path):
    """The side file of the regions of one scan."""
    side = side_file(image_path(tmp_path, scan_of(60.0), 'regions'))
    side.parent.mkdir(parents=True)
    facts = {
        'VolumesML': {region.name: 20.0 for region in load_regions()},
        'SkullStripped': False,
        'Segmentation': {'WeightsSHA256': load_curves()['weights_sha256']},
    }
    write_json(side, facts)
    return tmp_path


def percentiles(out):
    rows = read_tsv(volumes_path(out, scan_of(60.0)))
    return {row['region']: row['percentile'] for row in rows}


def reason(out):
    return read_json(side_file(volumes_path(out, scan_of(60.0))))['WithoutPercentiles']


def test_a_corrected_age_reaches_the_percentiles(out):
    write_volumes(out, scan_of(30.0))
    young = percentiles(out)
    write_volumes(out, scan_of(80.0))
    old = percentiles(out)
    assert float(young['lateral_ventricle']) > float(old['lateral_ventricle'])
    assert reason(out) == ''


def test_without_an_exact_age_there_is_no_percentile_and_the_reason_is_told(out):
    write_volumes(out, scan_of(None))
    assert set(percentiles(out).values()) <= {'n/a', '', None}
    assert reason(out) == 'the age is not known'
    write_volumes(out, scan_of(89.0, censored=True))
    assert reason(out) == 'the age is not known'


def test_what_says_the_same_is_not_written_again(out):
    write_volumes(out, scan_of(60.0))
    path = volumes_path(out, scan_of(60.0))
    before = path.stat().st_mtime_ns
    write_volumes(out, scan_of(60.0))
    assert path.stat().st_mtime_ns == before


def test_table_whose_images_are_gone_is_corrected_from_itself(out):
    write_volumes(out, scan_of(30.0))
    table = volumes_path(out, scan_of(30.0))
    written = table.read_bytes(), side_file(table).read_bytes()
    regions = side_file(image_path(out, scan_of(30.0), 'regions'))
    regions.unlink()
    write_volumes(out, scan_of(80.0))
    assert table.read_bytes() != written[0]
    write_volumes(out, scan_of(30.0))
    assert (table.read_bytes(), side_file(table).read_bytes()) == written


def test_table_of_a_run_that_keeps_no_images_is_not_taken_from_old_images(out):
    write_volumes(out, scan_of(60.0))
    table = volumes_path(out, scan_of(60.0))
    before = table.read_bytes()
    regions = side_file(image_path(out, scan_of(60.0), 'regions'))
    write_json(regions, read_json(regions) | {'SkullStripped': True})
    write_volumes(out, scan_of(60.0), images=False)
    assert table.read_bytes() == before
    write_volumes(out, scan_of(60.0))
    assert table.read_bytes() != before


def test_a_scan_without_regions_has_no_table(tmp_path):
    write_volumes(tmp_path, scan_of(60.0))
    assert not list(tmp_path.rglob('*'))
