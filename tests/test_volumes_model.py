"""The additive model on structure volumes, and the packaged bundle."""

import numpy as np
import pytest

from bids_brainage.cli.bundles import DEFAULT_MODELS, model_dirs
from bids_brainage.models.bundle import golden_age, resolve_bundle
from bids_brainage.models.check import check_bundle
from bids_brainage.models.volumes import VolumesRegressor

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


def test_packaged_bundle_is_the_default_and_states_its_accuracy(bundle):
    assert DEFAULT_MODELS == ('volumes.lifespan',)
    assert bundle.status == 'trained'
    real = [row for row in bundle.metadata['validation'] if not row['simulated']]
    healthy = next(row for row in real if 'healthy adults' in row['dataset'])
    assert healthy['mae'] < healthy['median_baseline_mae']
    assert healthy['r'] > 0
    assert bundle.metadata['conformal']['n'] > 0
    precision = np.array(bundle.metadata['training']['feature_distribution']['precision'])
    assert np.linalg.eigvalsh(precision).min() > 0
