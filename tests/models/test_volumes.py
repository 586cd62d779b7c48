"""The additive model on structure volumes, and the packaged bundle."""

import numpy as np
import pytest

from bids_brainage.bundles.bundle import golden_age, resolve_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs
from bids_brainage.errors import BundleError
from bids_brainage.models.volumes import VolumesRegressor, filled

EXACT = 1e-12
TENSORS = {
    'intercept': np.array([50.0]),
    'knots': np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 2.0]]),
    'values': np.array([[-4.0, 0.0, 6.0], [1.0, -1.0, 3.0]]),
    'offset': np.array([0.5, 0.0]),
}


@pytest.fixture
def model():
    made = VolumesRegressor(['a/brain', 'b/brain'])
    made.load_tensors(TENSORS)
    return made


@pytest.fixture(scope='module')
def bundle():
    return resolve_bundle('volumes.lifespan', model_dirs(None)[-1:])


def test_contributions_are_read_from_the_curves_and_add_up(model):
    rows = np.array([[0.0, 0.5], [-0.5, 2.0], [-2.0, 9.0]])
    expected = [[3.0, 0.0], [0.0, 3.0], [-4.0, 3.0]]  # beyond the knots the end holds
    for row, parts in zip(rows, expected, strict=True):
        np.testing.assert_allclose(model.contributions(row), parts, atol=EXACT)
    np.testing.assert_allclose(model(rows), 50 + np.sum(expected, axis=1), atol=EXACT)
    np.testing.assert_allclose(model.contributions(rows[1], rows[0]), [-3.0, 3.0], atol=EXACT)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'knots': None}, "'knots' with 2 dimensions is missing"),
        ({'values': np.zeros((3, 3))}, "'values' has 3 rows, not 2"),
        ({'offset': np.zeros((2, 2))}, "'offset' with 1 dimensions is missing"),
    ],
)
def test_wrong_tensors_are_refused(change, message):
    tensors = {k: v for k, v in (TENSORS | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        VolumesRegressor(['a', 'b']).load_tensors(tensors)


def test_packaged_bundle_passes_the_conformance_suite(bundle):
    report = check_bundle(bundle.path)
    assert report.passed, str(report)


def test_golden_age_is_exact(bundle):
    golden = bundle.metadata['golden']
    assert golden_age(bundle) == pytest.approx(golden['age'], abs=EXACT)


def test_packaged_contributions_add_up_exactly(bundle):
    model = bundle.instantiate()
    rng = np.random.default_rng(0)
    people = bundle.metadata['training']['feature_distribution']
    rows = np.array(people['mean']) - model.tensors['offset'] + rng.normal(0, 0.2, (50, 10))
    sums = [model.tensors['intercept'][0] + model.contributions(r).sum() for r in rows]
    np.testing.assert_allclose(model(rows), sums, rtol=EXACT)


def test_packaged_model_knows_how_brains_age(bundle):
    """Larger ventricles and a smaller brain within its envelope look older."""
    model = bundle.instantiate()
    usual = np.array(bundle.metadata['training']['feature_distribution']['mean'])
    usual = usual - model.tensors['offset']
    names = list(model.features)
    older = usual.copy()
    older[names.index('lateral_ventricle/brain')] += 0.5
    older[names.index('brain/intracranial')] -= 0.05
    assert model(older[None])[0] > model(usual[None])[0] + 3
    assert 40 < model(usual[None])[0] < 70


def test_the_bundle_of_tables_states_its_accuracy(bundle):
    assert bundle.status == 'trained'
    real = [row for row in bundle.metadata['validation'] if not row['simulated']]
    healthy = next(row for row in real if 'healthy adults' in row['dataset'])
    assert healthy['mae'] < healthy['median_baseline_mae']
    assert healthy['r'] > 0
    assert bundle.metadata['conformal']['n'] > 0
    precision = np.array(bundle.metadata['training']['feature_distribution']['precision'])
    assert np.linalg.eigvalsh(precision).min() > 0


def test_a_measure_that_is_not_known_is_what_a_regression_on_the_others_says():
    rng = np.random.default_rng(3)
    people = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 2.0
    known = {'mean': people.mean(axis=0), 'precision': np.linalg.inv(np.cov(people.T))}
    design = np.column_stack([np.ones(500), people[:, :3]])
    line = np.linalg.lstsq(design, people[:, 3], rcond=None)[0]
    asked = np.array([1.0, -2.0, 0.5, np.nan])
    found = filled(asked, known)
    np.testing.assert_array_equal(found[:3], asked[:3])
    assert found[3] == pytest.approx(line @ [1.0, 1.0, -2.0, 0.5], abs=1e-9)
    np.testing.assert_array_equal(filled(found, known), found)
    assert np.isnan(asked[3])  # what was given is left alone


def test_a_bundle_that_does_not_know_how_people_differ_cannot_fill_in():
    with pytest.raises(BundleError, match='whole head'):
        filled(np.array([1.0, np.nan]), None)


@pytest.fixture(scope='module')
def default():
    return resolve_bundle(DEFAULT_MODELS[0], model_dirs(None)[-1:])


def test_the_default_states_errors_of_people_and_of_sources_left_out(default):
    assert DEFAULT_MODELS == ('volumes.adults',)
    rows = {(r['method'], r['dataset']): r for r in default.metadata['validation']}
    everybody = 'real scans, everybody'
    folds = rows['people left out (10 folds)', everybody]
    assert folds['mae'] < 0.6 * folds['median_baseline_mae']
    assert (
        folds['n'] == rows['source left out', everybody]['n'] == default.metadata['conformal']['n']
    )
    for part in ('under 45', '45 to 60 years', '60 and older'):
        row = rows['people left out (10 folds)', f'real scans, {part}']
        assert 0.8 <= row['interval_coverage'] <= 0.98


def test_the_default_was_fitted_on_the_segmentation_that_ships(default):
    from bids_brainage.segmentation.weights import card

    assert default.input['segmentation']['weights_sha256'] == card()['weights_sha256']
    assert default.metadata['license'].startswith('CC BY-SA 4.0')
    assert card()['license'].startswith('CC BY-SA 4.0')


def test_the_default_knows_how_brains_age(default):
    """Larger ventricles and less brain in its skull look older."""
    model = default.instantiate()
    usual = np.array(default.metadata['training']['feature_distribution']['mean'])
    names = list(model.features)
    for name, change in (('lateral_ventricle/brain', 0.4), ('brain/intracranial', -0.04)):
        older = usual.copy()
        older[names.index(name)] += change
        assert model(older[None])[0] > model(usual[None])[0] + 0.5, name


def test_the_usual_person_of_an_age_is_told_that_age(default):
    curves = default.metadata['training']['reference_curves']
    ages = np.array(curves['age'])
    told = default.instantiate()(np.array(curves['features']).T)
    assert np.all(np.diff(told) > 0)
    assert np.abs(told - ages)[(ages >= 30) & (ages <= 90)].max() < 4


def test_the_default_adds_up_for_brains_far_from_the_usual(default):
    model, people = default.instantiate(), default.metadata['training']['feature_distribution']
    usual = np.array(people['mean'])
    spread = np.sqrt(np.diag(np.linalg.inv(np.array(people['precision']))))
    for x in usual + np.random.default_rng(0).normal(0, 2, (20, len(usual))) * spread:
        parts = model.contributions(x, usual)
        assert parts.sum() == pytest.approx(model(x[None])[0] - model(usual[None])[0], abs=1e-9)
