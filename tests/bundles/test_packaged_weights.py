"""The weights that travel with the package: sound, small, honest about themselves, and usable."""

import numpy as np
import pytest

from bids_brainage.bundles.bundle import WEIGHTS_FILE, find_bundles, load_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs

LARGEST_MB, TOGETHER_MB = 50, 80
PACKAGED = find_bundles(model_dirs(None)[-1:])


def test_the_default_is_packaged_and_all_together_are_small():
    assert set(DEFAULT_MODELS) <= set(PACKAGED)
    sizes = [(path / WEIGHTS_FILE).stat().st_size / 1e6 for path in PACKAGED.values()]
    assert max(sizes) < LARGEST_MB
    assert sum(sizes) < TOGETHER_MB


@pytest.mark.parametrize('name', sorted(PACKAGED))
def test_packaged_weights_pass_their_own_checks(name):
    report = check_bundle(PACKAGED[name])
    assert report.passed, str(report)


@pytest.mark.parametrize('name', sorted(PACKAGED))
def test_a_card_states_errors_on_real_scans_beside_the_median(name):
    metadata = load_bundle(PACKAGED[name], verify=False).metadata
    real = [row for row in metadata['validation'] if not row.get('simulated', False)]
    assert max(row['n'] for row in real) >= 30
    assert all(np.isfinite([row['mae'], row['median_baseline_mae']]).all() for row in real)
    assert metadata['conformal']['n'] >= 29
    assert 'calibrate' in metadata['limitations'].lower()
    assert ' for the weights' in metadata['license']


@pytest.mark.parametrize(
    'name', sorted(name for name in PACKAGED if name.endswith('.lifespan-reduced'))
)
def test_reduced_networks_are_named_so_and_no_worse_than_saying_the_median(name):
    metadata = load_bundle(PACKAGED[name], verify=False).metadata
    assert 'reduced' in metadata['title']
    assert metadata['training']['simulated'] is True
    generated = next(row for row in metadata['validation'] if row.get('simulated', False))
    assert generated['mae'] < 0.6 * generated['median_baseline_mae']
    whole = max(
        (r for r in metadata['validation'] if not r.get('simulated', False)), key=lambda r: r['n']
    )
    assert whole['mae'] < whole['median_baseline_mae']


def test_network_that_knows_real_people_says_from_whom_and_how_close():
    metadata = load_bundle(PACKAGED['vgg8.adults'], verify=False).metadata
    assert 'reduced' in metadata['title'] and metadata['license'].startswith('CC BY-SA 4.0')
    start = load_bundle(PACKAGED['vgg8.lifespan-reduced'], verify=False)
    assert metadata['training']['start'] == {
        'name': start.name, 'version': start.version, 'weights_sha256': start.weights_sha256,
    }  # fmt: skip
    rows = {(row['method'], row['dataset']): row for row in metadata['validation']}
    home = rows['people left out (5 folds)', 'real scans, IXI Hammersmith']
    assert home['r'] > 0.85 and home['mae'] < 6.0 < 0.45 * home['median_baseline_mae']
    views = ('people left out (5 folds)', 'source left out')
    people, source = (rows[view, 'real scans, everybody']['mae'] for view in views)
    assert people < source


def test_system_d_says_that_it_takes_the_t1w_image_alone_and_how_close():
    bundle = load_bundle(PACKAGED['amagenet.adults'], verify=False)
    metadata = bundle.metadata
    assert metadata['input']['structural_only'] is True
    assert metadata['arch_options']['fusion'] == 'structural'
    assert 'T1w image only' in metadata['limitations']
    assert metadata['license'].startswith('CC BY-SA 4.0')
    rows = {(row['method'], row['dataset']): row for row in metadata['validation']}
    home = rows['people left out (5 folds)', 'real scans, IXI Hammersmith']
    assert home['r'] > 0.7 and home['mae'] < 0.65 * home['median_baseline_mae']
    away = rows['source left out', 'real scans, everybody']
    assert home['mae'] < away['mae'] < 0.65 * away['median_baseline_mae']


def test_system_a_knows_its_sources_and_says_that_it_is_lost_elsewhere():
    metadata = load_bundle(PACKAGED['resnet_crossvit.adults'], verify=False).metadata
    assert 'reduced' in metadata['title'] and metadata['license'].startswith('CC BY-SA 4.0')
    assert 'not of CAT12' in metadata['limitations'] and 'maps_by' not in metadata['input']
    rows = {(row['method'], row['dataset']): row for row in metadata['validation']}
    home = rows['people left out (5 folds)', 'real scans, IXI Hammersmith']
    assert home['r'] > 0.7 and home['mae'] < 0.6 * home['median_baseline_mae']
    away = rows['source left out', 'real scans, everybody']
    assert home['mae'] < away['mae'] < 0.75 * away['median_baseline_mae']
