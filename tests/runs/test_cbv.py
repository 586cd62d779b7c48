"""System B and the consensus as a person runs them: maps in, rows of all regressions out."""

import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from program import run, tree

from bids_brainage.bundles.bundle import METADATA_FILE, load_bundle
from bids_brainage.bundles.contract import config_hash
from bids_brainage.bundles.places import model_dirs
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.outputs import read_brainage
from bids_brainage.tsv import read_tsv

FORMULAS = {'T': (2.0, 0.9), 'A': (5.0, 0.8), 'TA': (1.0, 0.6, 0.35), 'TAS': (1.5, 0.5, 0.4, -0.2)}
HALF = 6.5


def pretend_trained(bundle, modality, partner=None):
    """Give an untrained bundle what a training writes about itself."""
    path = bundle.path / METADATA_FILE
    metadata = json.loads(path.read_text())
    metadata['status'] = 'trained'
    metadata['training'] |= {'n': 100, 'age_min': 18.0, 'age_max': 90.0}
    check = {'dataset': 'held-out', 'n': 60, 'mae': 4.0, 'bias': 0.0, 'r': 0.9}
    check |= {'median_baseline_mae': 15.0, 'method': 'split', 'simulated': False}
    metadata['validation'] = [check]
    if modality == 'aicbv':
        metadata['input']['modality'] = 'aicbv'
        metadata['config_hash'] = config_hash(metadata)
        metadata['fusion'] = {
            'modality': 'aicbv',
            'partner': {'name': partner.name, 'weights_sha256': partner.weights_sha256},
            'regressions': {
                formula: {
                    'formula': formula, 'coefficients': values, 'n': 100,
                    'covariance': np.eye(len(values)).tolist(), 'residual_variance': 9.0,
                    'r_squared': 0.9, 'fitted_on': 'train+val',
                }
                for formula, values in FORMULAS.items()
            },
            'nested_tests': {},
            'test': {'TAS': {'n': 60, 'mae': 3.0, 'mse': 15.0, 'r2': 0.8}},
            'conformal': {
                'TAS': {'level': 0.9, 'half_width_years': HALF, 'n': 60, 'source': 'held-out'}
            },
        }  # fmt: skip
    path.write_text(json.dumps(metadata))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Run two simulated men of whom the first has a map in his own space."""
    root = tmp_path_factory.mktemp('system_b')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '2',
            '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    table = root / 'bids' / 'participants.tsv'
    table.write_text(table.read_text().replace('\tF', '\tM'))
    first = make_untrained_bundle('vgg8', 't1w', root / 'models', shape=(32, 32, 32))
    second = make_untrained_bundle('vgg8', 'cbv', root / 'models', shape=(32, 32, 32), seed=1)
    pretend_trained(first, 't1w')
    pretend_trained(second, 'aicbv', first)
    scan = next((root / 'bids').glob('sub-01/**/*_T1w.nii.gz'))
    image = nib.load(scan)
    target = root / 'maps' / scan.relative_to(root / 'bids')
    target.parent.mkdir(parents=True)
    data = 0.5 * np.asarray(image.dataobj, np.float32) + 3
    nib.save(
        nib.Nifti1Image(data, image.affine),
        target.with_name(scan.name.replace('_T1w', '_desc-aicbv_T1w')),
    )
    return root, system_b(root)


def system_b(root, *more, out='out'):
    return run(
        'bids', out, 'participant', '--nprocs', '2', '--sloppy', '-w', 'work', '--model-dir',
        'models', '--models', 'volumes.lifespan', 'vgg8.cbv', '--consensus', '--derivatives',
        'aicbv=maps', *more, cwd=root,
    )  # fmt: skip


def rows(root, subject):
    (path,) = (root / 'out').glob(f'sub-{subject}/**/*_brainage.tsv')
    return {row['model']: row for row in read_brainage(path)}, json.loads(
        path.with_suffix('.json').read_text()
    )


def volumes_share():
    """Weight of the packaged model beside one that is 3 years off."""
    packaged = load_bundle(model_dirs(None)[-1] / 'volumes.lifespan')
    (everybody,) = [v for v in packaged.metadata['validation'] if v['n'] == 30]
    return everybody['mae'] ** -2 / (everybody['mae'] ** -2 + 3.0**-2)


def test_run_adds_the_network_it_needs_and_ends_well(finished):
    _, process = finished
    assert process.returncode == 0, process.stderr
    assert 'vgg8.t1w is added: vgg8.cbv needs it' in process.stderr
    share = volumes_share()
    told = f'consensus volumes.lifespan {share:.3f}, vgg8.cbv-TAS {1 - share:.3f}'
    assert told in process.stderr
    assert '1 ages skipped for want of a blood-volume map' in process.stderr


def test_regressions_and_consensus_follow_from_the_networks_rows(finished):
    root, _ = finished
    found, side = rows(root, '01')
    t1w, cbv = (found[name]['predicted_age'] for name in ('vgg8.t1w', 'vgg8.cbv'))
    assert t1w != pytest.approx(cbv, abs=1e-3)
    expected = {
        'T': 2.0 + 0.9 * t1w,
        'A': 5.0 + 0.8 * cbv,
        'TA': 1.0 + 0.6 * t1w + 0.35 * cbv,
        'TAS': 1.5 + 0.5 * t1w + 0.4 * cbv - 0.2,
    }
    for formula, age in expected.items():
        assert found[f'vgg8.cbv-{formula}']['predicted_age'] == pytest.approx(age, abs=1e-6)
    tas = found['vgg8.cbv-TAS']
    assert tas['interval_high'] - tas['predicted_age'] == pytest.approx(HALF)
    volumes = found['volumes.lifespan']
    weight = volumes_share()
    for column in ('predicted_age', 'interval_low', 'interval_high'):
        mean = weight * volumes[column] + (1 - weight) * tas[column]
        assert found['consensus'][column] == pytest.approx(mean, abs=1e-6)
    assert side['Models']['vgg8.cbv']['CBVSource'].startswith('bids:aicbv:sub-01/')
    assert set(side['Models']['consensus']['Members']) == {'volumes.lifespan', 'vgg8.cbv-TAS'}


def test_map_stands_on_the_template_where_the_brain_is(finished):
    root, _ = finished
    (path,) = (root / 'out').glob('sub-01/**/*_space-MNI*_res-1_desc-aicbv_T1w.nii.gz')
    (t1w,) = (root / 'out').glob('sub-01/**/*desc-affine_T1w.nii.gz')
    warped, image = (np.asarray(nib.load(p).dataobj) for p in (path, t1w))
    brain = image != 0
    assert (
        np.corrcoef(warped[brain], image[brain])[0, 1] > 0.8
    )  # as bright, but for the bias field
    assert not warped[~brain].any()


def test_without_a_map_there_is_t_alone_and_nothing_is_made_up(finished):
    root, _ = finished
    found, _ = rows(root, '02')
    age = found['vgg8.t1w']['predicted_age']
    assert found['vgg8.cbv-T']['predicted_age'] == pytest.approx(2.0 + 0.9 * age, abs=1e-6)
    for name in ('vgg8.cbv', 'vgg8.cbv-A', 'vgg8.cbv-TA', 'vgg8.cbv-TAS'):
        assert (found[name]['status'], found[name]['qc_flag']) == ('skipped', 'no_cbv_map')
    assert found['consensus']['status'] == 'skipped'
    assert 'member_missing' in found['consensus']['qc_flag'].split(';')
    assert not list((root / 'out').glob('sub-02/**/*aicbv*'))


def test_one_report_shows_all_models(finished):
    root, _ = finished
    page = (root / 'out' / 'sub-01.html').read_text()
    found, _ = rows(root, '01')
    for name, row in found.items():
        assert name in page
        assert f'{row["predicted_age"]:.1f}' in page
    assert 'No map of blood volume' in (root / 'out' / 'sub-02.html').read_text()


def test_group_level_takes_combined_rows_as_models_of_their_own(finished):
    root, _ = finished
    process = run('bids', 'out', 'group', '--include-flagged', cwd=root)
    assert process.returncode == 0, process.stderr
    table = read_tsv(root / 'out' / 'group_accuracy.tsv')
    models = {row['model'] for row in table if row['subset'] == 'all'}
    assert {'consensus', 'vgg8.cbv-TAS', 'vgg8.cbv-T', 'volumes.lifespan'} <= models
    dropped = read_tsv(root / 'out' / 'group_exclusions.tsv')
    told = {(r['model'], r['reason']) for r in dropped if r['participant_id'] == 'sub-02'}
    assert ('consensus', 'status skipped') in told


def test_second_run_changes_nothing_and_a_changed_map_starts_again(finished):
    root, _ = finished
    before = tree(root / 'out')
    process = system_b(root)
    assert process.returncode == 0, process.stderr
    assert '0 to do' in process.stderr
    assert tree(root / 'out') == before
    (path,) = (root / 'maps').glob('**/*aicbv_T1w.nii.gz')
    kept = path.with_suffix('.kept')
    shutil.copy(path, kept)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)
    process = system_b(root, '--dry-run')
    assert 'expected the grid of sub-01' in process.stdout
    shutil.move(kept, path)
    assert ': no blood-volume map' in system_b(root, '--dry-run').stdout


def test_consensus_of_untrained_models_is_refused(finished, tmp_path):
    root, _ = finished
    make_untrained_bundle('vgg8', 'raw', tmp_path, shape=(32, 32, 32))
    process = run(
        'bids', 'new', 'participant', '--models', 'volumes.lifespan', 'vgg8.raw', '--model-dir',
        tmp_path, '--consensus', cwd=root,
    )  # fmt: skip
    assert process.returncode == 2
    assert 'vgg8.raw states no error that it was validated with' in process.stderr
    assert not list((root / 'new').glob('sub-*'))
