"""After training: calibration, fusion, comparison and the page."""

import numpy as np
import pytest

from bids_brainage.bundles.regressions import LinearFusion
from bids_brainage.errors import MissingInputError
from bids_brainage.inference.interval import conformal_interval
from bids_brainage.reports.training import people_rows, render_training_page
from bids_brainage.training.calibrate import LEVEL, calibrate_predictions
from bids_brainage.training.comparison import comparison_rows, comparison_text
from bids_brainage.training.fusing import fit_fusions, partner_predictions
from bids_brainage.training.predictions import per_person, read_predictions, write_predictions
from bids_brainage.training.recipe_check import make_recipe

# Three standard errors of a line through 90 people with noise of 2 years.
SLOPE_TOLERANCE, YEARS_TOLERANCE = 0.025, 0.7


def predictions(n=200, seed=0, noise=4.0, slope=0.9, bias=3.0):
    """People of all roles whose predictions follow a known line with known noise."""
    rng = np.random.default_rng(seed)
    roles = ['training'] * 14 + ['validation'] * 3 + ['test'] * 3
    rows = []
    for k in range(n):
        age = float(rng.uniform(20, 80))
        rows.append({
            'participant_id': f'sub-{k}', 'session_id': 'n/a', 'source': f'bids:raw:{k}',
            'fold': 1, 'role': roles[k % 20], 'age': age, 'sex': 'FM'[k % 2],
            'cohort': f's{k % 2}',
            'predicted_age': float(slope * age + bias + rng.normal(0, noise)),
        })  # fmt: skip
    return rows


def calibrated(rows):
    return calibrate_predictions(rows, dataset='d', method='held out people', simulated=False)


def test_calibration_recovers_the_line_and_covers_new_people():
    result = calibrated(predictions(6000, noise=2.0))
    assert result.validation['n'] == 900 and result.notes == ()
    assert result.bias_correction['slope'] == pytest.approx(0.9, abs=SLOPE_TOLERANCE)
    at_50 = 50 * result.bias_correction['slope'] + result.bias_correction['intercept']
    assert at_50 == pytest.approx(48, abs=YEARS_TOLERANCE)
    new = predictions(2000, seed=1, noise=2.0)
    limits = [conformal_interval(row['predicted_age'], result.conformal) for row in new]
    inside = [low <= row['age'] <= high for row, (low, high, _) in zip(new, limits, strict=True)]
    assert np.mean(inside) == pytest.approx(LEVEL, abs=0.02)
    decades = result.validation['interval_coverage_by_decade'].values()
    assert sum(decade['n'] for decade in decades) == 900
    assert all(0.8 < decade['coverage'] < 0.97 for decade in decades)
    assert result.validation['interval_coverage'] == pytest.approx(LEVEL, abs=0.01)


def test_too_few_people_leave_a_note_instead_of_a_number():
    result = calibrated(predictions(40))
    assert result.conformal is None and result.bias_correction is None
    assert len(result.notes) == 2 and 'too few' in result.notes[0]


def test_worse_than_the_median_is_said():
    rows = predictions(400)
    for row in rows:
        row['predicted_age'] = 100 - row['age']
    assert any('not better' in note for note in calibrated(rows).notes)


def test_every_person_counts_once():
    rows = predictions(20)
    twice = [*rows, *({**row, 'source': row['source'] + 'b'} for row in rows[:10])]
    assert len(per_person(twice)) == 20


def two_networks():
    """A T1w and a CBV network whose mean is better than either."""
    first, second = predictions(400, 1, noise=5, slope=1, bias=0), predictions(400, 1, 0, 1, 0)
    rng = np.random.default_rng(2)
    for row in second:
        row['predicted_age'] = row['age'] + rng.normal(0, 5)
    return first, second


def test_fusion_of_one_network_is_its_own_regression():
    first, _ = two_networks()
    fusion = fit_fusions(first, 't1w', 'train+val')
    assert set(fusion['regressions']) == {'T'} == set(fusion['test'])
    chosen = [row for row in first if row['role'] != 'test']
    slope, intercept = np.polyfit(
        [row['predicted_age'] for row in chosen], [row['age'] for row in chosen], 1
    )
    assert fusion['regressions']['T']['coefficients'] == pytest.approx([intercept, slope])
    assert fusion['regressions']['T']['n'] == len(chosen) == 340


def test_fusion_of_two_networks_beats_each():
    first, second = two_networks()
    fusion = fit_fusions(second, 'aicbv', 'val', first)
    assert set(fusion['regressions']) == {'T', 'A', 'TA', 'TAS'}
    errors = {name: stats['mae'] for name, stats in fusion['test'].items()}
    assert errors['TA'] < min(errors['T'], errors['A'])
    assert fusion['nested_tests']['A vs TA']['p'] < 1e-3
    assert fusion['nested_tests']['TA vs TAS']['p'] > 0.001
    stored = {k: LinearFusion.from_dict(v) for k, v in fusion['regressions'].items()}
    age, _ = stored['TAS'].predict({'t1w': 50.0, 'aicbv': 52.0, 'sex': 0.0})
    assert age == pytest.approx(51, abs=3)
    assert fit_fusions(second, 'aicbv', 'oof', first)['test'] == {}


def test_missing_partner_is_said(tmp_path):
    with pytest.raises(MissingInputError, match='Train it first'):
        partner_predictions(tmp_path, 'vgg8.t1w')


def test_predictions_come_back_from_the_table(tmp_path):
    rows = predictions(20)
    write_predictions(tmp_path / 'p.tsv', rows)
    back = read_predictions(tmp_path / 'p.tsv')
    assert [row['predicted_age'] for row in back] == [row['predicted_age'] for row in rows]


def test_comparison_has_the_rows_of_the_paper():
    trainings = {}
    for name, noise in (('good', 2.0), ('poor', 8.0)):
        rows = predictions(400, noise=noise, slope=1, bias=0)
        for k in range(12):
            for visit, age in enumerate((30.0 + k, 30.0 + k + (4 if k < 6 else 0.01))):
                role = 'longitudinal' if k < 6 else 'retest'
                rows.append({
                    **rows[0], 'participant_id': f'sub-r{k}', 'source': f'bids:raw:r{k}-{visit}',
                    'role': role, 'age': age, 'predicted_age': age + noise * visit,
                })  # fmt: skip
        trainings[name] = rows
    table = comparison_rows(trainings)
    by = {(row['subset'], row['model']): row for row in table}
    assert by['all', 'good']['n'] == 60 and by['all', 'good']['mae'] < by['all', 'poor']['mae']
    assert by['[0,18)', 'good']['n'] == 0 and by['[0,18)', 'good']['mae'] is None
    assert by['[18,60)', 'poor']['n'] + by['[60,..)', 'poor']['n'] == 60
    assert by['longitudinal', 'poor']['mde'] == pytest.approx(8)
    assert by['test-retest', 'good']['icc_3_1'] == pytest.approx(1, abs=1e-6)
    assert by['longitudinal', 'good']['mae'] is None
    lines = comparison_text(table).splitlines()
    assert len(lines) == 1 + len(table)
    assert lines[0].split()[:3] == ['subset', 'model', 'n']


def test_page_says_what_matters_and_escapes_names():
    rows = predictions(400)
    result = calibrated(rows)
    metadata = {
        'name': 'vgg8.x<y', 'description': 'D.', 'intended_use': 'U.', 'limitations': 'L.',
        'license': 'none', 'weights_sha256': '0', 'package_version': '0',
        'reference': {'text': 'R'},
        'validation': [result.validation], 'conformal': result.conformal,
        'training': {'n': 280, 'age_min': 20.0, 'age_max': 80.0, 'simulated': True, 'seed': 0,
                     'recipe': make_recipe('vgg8', {}).as_dict()},
    }  # fmt: skip
    history = [
        {'epoch': float(k), 'train_loss': 9.0 / k, 'val_loss': 8.0 / k, 'val_mae': 12.5 / k,
         'val_r': 0.9, 'seconds': 2.0} for k in range(1, 6)
    ]  # fmt: skip
    page = render_training_page(metadata, rows, {1: history, 2: history}, ['A <caution>.'])
    assert 'vgg8.x&lt;y' in page and 'A &lt;caution&gt;.' in page
    assert page.count('<svg') == 7 and 'Fold 2' in page  # two figures, two curves, three roles
    assert 'lowest 2.50 years in epoch 5' in page and 'simulated' in page
    assert 'src=' not in page and 'href="http' not in page
    people = {row['role']: row for row in people_rows(rows)}
    assert people['test']['people'] == 60 and people['test']['female'] == '33 %'
