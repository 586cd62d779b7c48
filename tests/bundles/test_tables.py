"""The packaged models of tables of other programs."""

import numpy as np
import pytest

from bids_brainage.bundles.bundle import resolve_bundle
from bids_brainage.bundles.contract import metadata_problems
from bids_brainage.bundles.places import DEFAULT_BY_PROGRAM, model_dirs
from bids_brainage.names import PROGRAMS

NAMES = sorted(set(DEFAULT_BY_PROGRAM.values()))
LEFT_OUT = {'tables.openneuro': 'data sets left out (10 folds)', 'tables.ixi': 'hospital left out'}


@pytest.fixture(scope='module', params=NAMES)
def bundle(request):
    return resolve_bundle(request.param, model_dirs(None)[-1:])


def rows_of(bundle):
    """Return the rows of all sources, as they are."""
    rows = bundle.metadata['validation']
    return {row['dataset']: row for row in rows if row['method'] == LEFT_OUT[bundle.name]}


def test_every_program_has_a_model_that_takes_it():
    for program, name in DEFAULT_BY_PROGRAM.items():
        assert program in PROGRAMS
        found = resolve_bundle(name, model_dirs(None)[-1:])
        assert program in found.input['programs']


def test_the_card_states_errors_with_whole_sources_left_out(bundle):
    rows = rows_of(bundle)
    adults = rows['real tables, adults (18 and older)']
    assert adults['method'] == LEFT_OUT[bundle.name]
    assert adults['mae'] < 0.8 * adults['median_baseline_mae']
    assert 0.85 <= adults['interval_coverage'] <= 0.95
    errors = [step['mae'] for step in bundle.metadata['training']['learning_curve']]
    assert errors == sorted(errors, reverse=True)  # more people, smaller errors


def test_the_model_of_freesurfer_is_closest_to_the_young_but_knows_the_old():
    found = resolve_bundle('tables.openneuro', model_dirs(None)[-1:])
    rows = rows_of(found)
    assert rows['real tables, adults (18 and older)']['mae'] < 5.3
    assert rows['real tables, 18 to 45 years']['mae'] < 5.0
    old = rows['real tables, 50 and older']
    assert old['mae'] < 7.6
    assert abs(old['bias']) < 5
    assert rows['real tables, 60 and older']['mae'] < 8


def test_the_card_says_what_harmonising_brings():
    found = resolve_bundle('tables.openneuro', model_dirs(None)[-1:])
    old = {
        row['method'].split(', ')[-1]: row
        for row in found.metadata['validation']
        if row['dataset'] == 'real tables, 50 and older'
    }
    assert old['harmonised']['n'] == old['11 and more people']['n']
    assert old['harmonised']['mae'] < old['11 and more people']['mae'] - 0.5


def test_people_look_older_the_older_they_are(bundle):
    curves = bundle.metadata['training']['reference_curves']
    ages = bundle.instantiate()(np.array(curves['features']).T)
    assert np.all(np.diff(ages[2:]) > 0)


def test_a_trained_model_of_tables_needs_the_usual_people(bundle):
    training = {k: v for k, v in bundle.metadata['training'].items() if k != 'reference_curves'}
    problems = metadata_problems({**bundle.metadata, 'training': training})
    assert problems == ['`training.reference_curves` is missing']
    wrong = {**bundle.metadata['input'], 'programs': []}
    assert '`input.programs`' in metadata_problems({**bundle.metadata, 'input': wrong})[0]
