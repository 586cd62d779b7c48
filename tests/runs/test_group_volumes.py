"""One table of the volumes of all scans, and what it says of tables that do not fit."""

from __future__ import annotations

import group_cohort as study
import pandas as pd
import pytest
from report_tree import add_volumes

from bids_brainage.cli.main import main
from bids_brainage.outputs.collect import read_predictions
from bids_brainage.outputs.files import read_json, write_json
from bids_brainage.runs.group_volumes import gather_volumes
from bids_brainage.segmentation.norms import load_structures
from bids_brainage.tsv import read_tsv

PEOPLE = 12


@pytest.fixture
def root(tmp_path):
    """Twelve people, of whom ten have a table of volumes."""
    data = study.cohort().head(PEOPLE)
    study.write_cohort(tmp_path, data)
    for row in data.head(PEOPLE - 2).to_dict('records'):
        add_volumes(tmp_path / 'out', row['participant_id'], row['age'], row['sex'], factor=2.0)
    return tmp_path


def gather(root):
    return gather_volumes(root / 'out', read_predictions(root / 'out').table)


def side_of(root, name):
    return root / 'out' / name / 'anat' / f'{name}_volumes.json'


def test_the_group_level_writes_ml_share_and_percentile_of_every_scan(root):
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main(places) == 0
    rows = read_tsv(root / 'out' / 'group_volumes.tsv')
    assert len(rows) == (PEOPLE - 2) * len(load_structures())
    own = read_tsv(root / 'out' / 'sub-03' / 'anat' / 'sub-03_volumes.tsv')
    mine = [row for row in rows if row['participant_id'] == 'sub-03']
    for name in ('region', 'volume', 'share', 'percentile'):
        assert [row[name] for row in mine] == [row[name] for row in own]
    ventricles = next(row for row in mine if row['region'] == 'ventricles')
    assert float(ventricles['percentile']) > 90  # drawn twice as large as usual
    data = study.cohort()
    assert float(ventricles['age']) == data['age'][2] and ventricles['sex'] == data['sex'][2]
    assert ventricles['source'] == data['source'][2]
    flags = {row['participant_id']: row['qc_flag'] for row in rows}
    assert flags['sub-01'] == study.STOP and flags['sub-10'] == 'n/a'
    described = read_json(root / 'out' / 'group_volumes.json')
    assert set(rows[0]) <= set(described) and described['volume']['Units'] == 'mL'


def test_flags_of_all_models_are_together_once(root):
    table = read_predictions(root / 'out').table
    other = table.assign(model='net.b', qc_flag='anisotropic;' + study.STOP)
    both = pd.concat([table, other.head(1)], ignore_index=True)
    found = gather_volumes(root / 'out', both).table
    first = found[found['participant_id'] == 'sub-01']
    assert len(first) == len(load_structures())
    assert set(first['qc_flag']) == {f'{study.STOP};anisotropic'}


def test_volumes_of_two_segmentations_are_told(root):
    assert gather(root).notes == []
    side = read_json(side_of(root, 'sub-02'))
    write_json(side_of(root, 'sub-02'), {**side, 'Segmentation': {'WeightsSHA256': 'other'}})
    (note,) = gather(root).notes
    assert '2 versions of the segmentation' in note


def test_a_table_that_cannot_be_read_costs_only_its_scan(root):
    path = side_of(root, 'sub-02').with_suffix('.tsv')
    path.write_bytes(b'region\tvolume\n\xff\t1\n')
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main(places) == 1
    people = {row['participant_id'] for row in read_tsv(root / 'out' / 'group_volumes.tsv')}
    assert len(people) == PEOPLE - 3 and 'sub-02' not in people
    (line,) = [
        row
        for row in read_tsv(root / 'out' / 'group_exclusions.tsv')
        if row['analysis'] == 'volumes'
    ]
    assert line['participant_id'] == 'sub-02' and 'table of volumes' in line['reason']


def test_a_table_of_an_earlier_run_goes_when_nobody_has_volumes(root):
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main(places) == 0
    for path in (root / 'out').glob('sub-*/anat/*_volumes.tsv'):
        path.unlink()
    assert main(places) == 0
    assert not list((root / 'out').glob('group_volumes.*'))
