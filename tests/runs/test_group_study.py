"""The group level on simulated people whose every number comes from an image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import simulated_study as study
from validator import errors_of

from bids_brainage.cli.main import main
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.slow

FOLDER = 'BIDS_BRAINAGE_TEST_STUDY'
"""Environment variable: a folder that keeps the study; the cache of pytest if it is not set."""

MODEL = 'volumes.lifespan'
NOISE = (0.5, 12.0)
"""Credible error of one scan with voxels of 4 mm, years."""


@pytest.fixture(scope='module')
def out(request):
    place = os.environ.get(FOLDER)
    root = Path(place) if place else request.config.cache.mkdir('simulated-study')
    out = study.run_participants(root, '--models', MODEL)
    options = ['--correlate', study.UNRELATED, '--group-column', 'sex']
    options.append('--include-flagged')  # the study is made with --sloppy
    bids = out.with_name('bids')
    assert main([str(bids), str(out), 'group', '-w', str(out.with_name('work')), *options]) == 0
    return out


def row(out, table, **cells):
    rows = [
        r for r in read_tsv(out / f'group_{table}.tsv') if all(r[k] == v for k, v in cells.items())
    ]
    assert len(rows) == 1, (table, cells, len(rows))
    return rows[0]


def test_ages_are_found(out):
    first = row(out, 'accuracy', model=MODEL, subset='all', unit='scan', corrected='false')
    assert (first['n'], first['n_subjects']) == (str(2 * study.PEOPLE), str(study.PEOPLE))
    assert float(first['r']) > 0.6
    assert float(first['mae']) < 15


def test_retests_agree_better_than_people(out):
    retest = row(out, 'reliability', model=MODEL, session_set='sessions')
    assert retest['n'] == str(study.PEOPLE // 2)
    assert NOISE[0] < float(retest['sigma_scan']) < NOISE[1]
    assert float(retest['icc_3_1']) > 0.5
    days = float(retest['median_interval_days'])
    assert days == pytest.approx(365.25 * study.RETEST_YEARS, abs=1)


def test_eight_years_make_brains_look_older(out):
    summary = row(out, 'longitudinal', model=MODEL, row='summary')
    assert summary['n_pairs'] == str(study.PEOPLE // 2)
    people = [r for r in read_tsv(out / 'group_longitudinal.tsv') if r['row'] == 'participant']
    years = np.array([float(r['delta_age']) for r in people])
    np.testing.assert_allclose(years, study.CHANGE_YEARS, atol=0.01)
    assert np.mean([float(r['delta_predicted']) for r in people]) > 0


def test_a_column_is_correlated_over_people_not_scans(out):
    """Numbers that were drawn for people have nothing to do with their brains."""
    found = row(
        out, 'differences', column=study.UNRELATED, level_a='all', corrected='false', model=MODEL
    )
    assert found['n_a'] == str(study.PEOPLE)
    assert float(found['ci_low']) < float(found['estimate']) < float(found['ci_high'])
    assert float(found['ci_low']) < 0 < float(found['ci_high'])


def test_every_table_has_its_dictionary_and_nothing_is_lost(out):
    tables = sorted(out.glob('group_*.tsv'))
    assert len(tables) == 7
    assert all(path.with_suffix('.json').exists() for path in tables)
    assert len(read_tsv(out / 'group_brainage.tsv')) == 2 * study.PEOPLE
    page = (out / 'group.html').read_text()
    assert 'Explanation map, ' in page and 'No person has' not in page


def test_the_output_passes_the_validator(out):
    assert not errors_of(out)
