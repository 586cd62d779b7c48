"""Scans that nobody should use are left out of every statistic, and are named."""

from __future__ import annotations

import json
from pathlib import Path

import group_cohort as study
import numpy as np
import pandas as pd
import pytest

from bids_brainage.cli.main import main
from bids_brainage.cli.request import parse
from bids_brainage.flags import stop_flags
from bids_brainage.statistics.tables.analysis import analyse
from bids_brainage.statistics.tables.options import GroupOptions
from bids_brainage.statistics.tables.rows import left_out
from bids_brainage.tsv import read_tsv

OPTIONS = {'group_column': 'dx', 'reference_group': ('dx', 'control'), 'draws': 50}
BAD = [f'sub-{k + 1:02d}' for k in range(study.DAMAGED)]


def difference(data, **options):
    """Patients minus controls of the same age."""
    result = analyse(data, GroupOptions(**OPTIONS, **options))
    rows = result.tables['differences']
    (row,) = rows[(rows['test'] == 'ancova_pair') & ~rows['corrected']].to_dict('records')
    assert (row['level_a'], row['level_b']) == study.GROUPS[::-1]
    return row, result


def test_five_ruined_scans_do_not_hide_a_difference():
    """Counted, they turned +7.1 years (p 3e-5) into +1.1 (p 0.77)."""
    data = study.cohort()
    row, result = difference(data)
    assert row['estimate'] == pytest.approx(study.EFFECT, abs=3)
    assert row['p'] < 3e-4
    assert row['n_b'] == study.CONTROLS - study.DAMAGED
    wrong, _ = difference(data, excluded_flags=frozenset())
    assert wrong['estimate'] < 3 and wrong['p'] > 0.1
    width, too_wide = (r['ci_high'] - r['ci_low'] for r in (row, wrong))
    assert too_wide > 2 * width
    calibration = result.facts['calibration']['net.a']
    assert calibration['n_reference'] == study.CONTROLS - study.DAMAGED
    assert calibration['conformal']['half_width_years'] < 15
    assert set(result.plots['people']['participant_id']).isdisjoint(BAD)


def test_the_result_is_that_of_the_others_alone():
    data = study.cohort()
    row, _ = difference(data)
    alone, _ = difference(data[~data['participant_id'].isin(BAD)])
    assert {k: v for k, v in row.items() if v == v} == {k: v for k, v in alone.items() if v == v}


def test_they_are_listed_with_their_flags():
    _, result = difference(study.cohort())
    gone = result.tables['exclusions']
    assert gone['participant_id'].tolist() == BAD
    assert set(gone['qc_flag']) == {study.STOP}
    assert set(gone['reason']) == {'flagged field_of_view_cut'}
    assert set(gone['analysis']) == {'all'}
    assert any('5 images of 5 people' in note for note in result.warnings)
    assert len(result.tables['brainage']) == study.CONTROLS + study.PATIENTS


def test_cautions_can_be_left_out_by_name():
    chosen = stop_flags() | {study.CAUTION}
    _, result = difference(study.cohort(), excluded_flags=chosen)
    assert result.tables['exclusions']['participant_id'].tolist() == [*BAD, 'sub-06']


def test_flags_of_any_form_and_ratings():
    table = pd.DataFrame(
        {
            'qc_flag': [
                None,
                np.nan,
                'anisotropic',
                'sloppy',
                'anisotropic;mask_volume(9)',
            ],
            'rating': ['reject', 'accept', 'unsure', None, 'reject'],
        }
    )
    assert left_out(table, {'sloppy', 'mask_volume'}).tolist() == [
        'rated reject',
        None,
        None,
        'flagged sloppy',
        'rated reject',
    ]
    assert left_out(table[['qc_flag']], stop_flags()).notna().tolist() == [False] * 3 + [True] * 2


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp('cohort')
    study.write_cohort(root)
    return [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]


def test_on_the_command_line(places, capsys):
    out = places[1]
    options = ['--group-column', 'dx']
    for extra, n in (
        ([], 35),
        (['--exclude-flags', 'anisotropic'], 34),
        (['--include-flagged'], 40),
        (['--include-flagged', '--exclude-flags', 'anisotropic'], 39),
    ):
        assert main([*places, *options, *extra]) == 0
        rows = read_tsv(f'{out}/group_differences.tsv')
        (row,) = (r for r in rows if r['test'] == 'games_howell')
        assert {row['n_a'], row['n_b']} == {str(n), '20'}
        side = json.loads(Path(out, 'group_accuracy.json').read_text())
        notes = side['Analysis']['warnings']
        assert any('Flagged "do not use" and counted' in x for x in notes) == (n > 35)
    log = capsys.readouterr().err
    assert 'left out  5 of all: flagged field_of_view_cut' in log


def test_unknown_flags_are_refused(places, capsys):
    with pytest.raises(SystemExit):
        parse([*places, '--exclude-flags', 'anisotropc'], {})
    error = capsys.readouterr().err
    assert 'no flag anisotropc' in error and 'anisotropic' in error


def test_when_all_are_flagged_the_way_out_is_said(tmp_path, capsys):
    study.write_cohort(tmp_path, study.cohort().head(study.DAMAGED))
    places = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'group', '-w', str(tmp_path / 'work')]
    assert main(places) == 65
    assert '--include-flagged' in capsys.readouterr().err
    assert main([*places, '--include-flagged']) == 0
