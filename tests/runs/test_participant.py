"""The main job as a person runs it: a dataset in, ages, maps, tables and pages out."""

import hashlib
import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from program import run, tree
from validator import errors_of

from bids_brainage.outputs import read_brainage

ARCHITECTURES = {
    'resnet_crossvit': (32, 32, 32),
    'resnet_only': (32, 32, 32),
    'vit_only': (32, 32, 32),
    'resnet_vit': (32, 32, 32),
    'vgg8': (32, 32, 32),
    'densenet169_clinical': (80, 120, 40),
    'amagenet': (32, 32, 32),
    'sfcn': (96, 96, 96),
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Run two simulated people, one of them with a second, corrupt session."""
    root = tmp_path_factory.mktemp('participant')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '2',
            '--sessions', '2', '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    broken = next((root / 'bids').glob('sub-02/ses-2/anat/*_T1w.nii.gz'))
    broken.write_bytes(broken.read_bytes()[:20000])
    shutil.rmtree(root / 'bids' / 'sub-01' / 'ses-2')
    process = run(
        'bids', 'out', 'participant', '--nprocs', '2', '--sloppy', '-w', 'work', cwd=root
    )
    return root, process


def rows(root):
    return [r for p in sorted((root / 'out').rglob('*_brainage.tsv')) for r in read_brainage(p)]


def test_one_corrupt_file_costs_its_own_row_and_exit_status_1(finished):
    root, process = finished
    assert process.returncode == 1, process.stderr
    status = {(r['participant_id'], r['session_id']): r['status'] for r in rows(root)}
    assert status == {
        ('sub-01', 'ses-1'): 'ok',
        ('sub-02', 'ses-1'): 'ok',
        ('sub-02', 'ses-2'): 'failed',
    }
    assert 'cannot be read as an image' in process.stderr
    assert 'failed' in process.stdout


def test_rows_hold_age_interval_and_flags(finished):
    root, _ = finished
    for row in rows(root):
        if row['status'] == 'ok':
            assert 10 < row['predicted_age'] < 110
            assert row['interval_low'] < row['predicted_age'] < row['interval_high']
            assert row['brain_age_gap'] == pytest.approx(row['predicted_age'] - row['age'])
            assert {'sloppy', 'simulated'} <= set(row['qc_flag'].split(';'))


def test_side_file_traces_the_number(finished):
    root, _ = finished
    table = next((root / 'out').glob('sub-01/ses-1/anat/*_brainage.json'))
    side = json.loads(table.read_text())
    facts = side['Models']['volumes.adults']
    image = next((root / 'bids').glob('sub-01/ses-1/anat/*_T1w.nii.gz'))
    assert side['InputSHA256'] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert len(facts['WeightsSHA256']) == 64
    assert facts['Device'] == 'cpu'
    assert side['Options'] == {'sloppy': True}
    assert side['SoftwareVersions']['nipype']
    row = next(r for r in rows(root) if r['participant_id'] == 'sub-01')
    total = facts['BaseAge'] + sum(facts['Contributions'].values())
    assert total == pytest.approx(row['predicted_age'], abs=1e-9)


def test_maps_lie_on_the_person_and_on_the_template(finished):
    root, _ = finished
    folder = root / 'out' / 'sub-01' / 'ses-1' / 'anat'
    native = nib.load(next(folder.glob('*_space-T1w_*contribution_saliency.nii.gz')))
    normal = nib.load(next(folder.glob('*_space-MNI*contribution_saliency.nii.gz')))
    image = nib.as_closest_canonical(nib.load(next((root / 'bids').glob('sub-01/**/*T1w.nii.gz'))))
    assert native.shape == image.shape
    assert np.allclose(native.affine, image.affine, atol=1e-4)
    assert normal.shape == (197, 233, 189)
    template_mask = nib.load(next(folder.glob('*desc-brain_mask.nii.gz')))
    outside = np.asarray(normal.dataobj)[np.asarray(template_mask.dataobj) == 0]
    # a 2 mm map on a 1 mm grid: only the rim of one voxel may lie outside
    assert np.abs(outside).sum() < 0.1 * np.abs(np.asarray(normal.dataobj)).sum()


def test_modulated_grey_matter_keeps_the_native_volume(finished):
    root, _ = finished
    folder = root / 'out' / 'sub-01' / 'ses-1' / 'anat'
    modulated = nib.load(next(folder.glob('*label-GM_desc-modulated_probseg.nii.gz')))
    side = json.loads(next(folder.glob('*desc-structures_dseg.json')).read_text())
    grey = (
        'cortex', 'cerebellum_cortex', 'thalamus', 'caudate', 'putamen', 'pallidum',
        'hippocampus', 'amygdala',
    )  # fmt: skip
    native_ml = sum(side['VolumesML'][name] for name in grey)
    template_ml = np.asarray(modulated.dataobj, float).sum() / 1000
    assert template_ml == pytest.approx(native_ml, rel=0.01)


def test_transforms_pull_the_scan_onto_the_template(finished):
    import SimpleITK as sitk

    root, _ = finished
    folder = root / 'out' / 'sub-01' / 'ses-1' / 'anat'
    forward = sitk.ReadTransform(str(next(folder.glob('*from-T1w_to-MNI*_xfm.h5'))))
    backward = sitk.ReadTransform(str(next(folder.glob('*from-MNI*_to-T1w_*_xfm.h5'))))
    points = [(0.0, 0.0, 0.0), (20.0, -30.0, 25.0), (-35.0, 10.0, 10.0)]
    for point in points:
        there = forward.TransformPoint(point)
        back = backward.TransformPoint(there)
        assert np.linalg.norm(np.subtract(back, point)) < 1.0
    scan = sitk.ReadImage(str(next((root / 'bids').glob('sub-01/**/*T1w.nii.gz'))))
    template = next((root / 'work' / 'templateflow').rglob('*res-2_desc-brain_mask.nii.gz'))
    mask = sitk.ReadImage(str(template))
    warped = sitk.GetArrayFromImage(sitk.Resample(scan, mask, forward))
    inside = sitk.GetArrayFromImage(mask) > 0
    assert warped[inside].mean() > 2 * np.abs(warped[~inside]).mean()


def test_output_passes_the_validator(finished):
    root, _ = finished
    assert errors_of(root / 'out') == []


def test_second_run_does_nothing_and_changes_no_byte(finished):
    root, _ = finished
    before = tree(root / 'out')
    process = run(
        'bids', 'out', 'participant', '--nprocs', '2', '--sloppy', '-w', 'work2',
        '--participant-label', '01', cwd=root,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert tree(root / 'out') == before
    assert '0 to do' in process.stderr
    assert not (root / 'work2' / 'templateflow').exists()


def test_other_options_do_not_mix_into_the_same_folder(finished):
    root, _ = finished
    process = run('bids', 'out', 'participant', '-w', 'work', cwd=root)
    assert process.returncode == 2
    assert 'another folder' in process.stderr


def test_dry_run_writes_nothing(finished):
    root, _ = finished
    process = run(
        'bids', 'new', 'participant', '--dry-run', '--participant-label', 'sub-02', cwd=root
    )
    assert process.returncode == 0, process.stderr
    assert 'sub-02_ses-1_T1w.nii.gz' in process.stdout
    assert 'sub-01' not in process.stdout
    assert not (root / 'new').exists()


def test_report_is_there_and_names_the_failure(finished):
    root, _ = finished
    page = (root / 'out' / 'sub-02.html').read_text()
    assert 'cannot be read as an image' in page
    row = next(r for r in rows(root) if r['participant_id'] == 'sub-02' and r['predicted_age'])
    assert f'{row["predicted_age"]:.1f}' in page


def test_deleted_derivatives_come_back(finished):
    root, _ = finished
    gone = next((root / 'out').glob('sub-01/**/*desc-preproc_T1w.nii.gz'))
    content = gone.read_bytes()
    figure = next((root / 'out' / 'sub-01' / 'figures').glob('*desc-mask*'))
    figure.unlink()
    gone.unlink()
    process = run(
        'bids', 'out', 'participant', '--nprocs', '2', '--sloppy', '-w', 'work',
        '--participant-label', '01', cwd=root,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert gone.read_bytes() == content
    assert figure.exists()


def test_every_system_runs_with_untrained_weights(finished):
    from bids_brainage.bundles.untrained import make_untrained_bundle

    root, _ = finished
    names = []
    for arch, shape in ARCHITECTURES.items():
        make_untrained_bundle(arch, 'plumbing', root / 'models', shape=shape)
        names.append(f'{arch}.plumbing')
    process = run(
        'bids', 'out', 'participant', '--nprocs', '2', '--sloppy', '-w', 'work',
        '--participant-label', '01', '--model-dir', 'models', '--models', *names, cwd=root,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert 'untrained' in process.stderr
    found = {r['model']: r for r in rows(root) if r['participant_id'] == 'sub-01'}
    for name in names:
        row = found[name]
        assert row['status'] == 'ok'
        assert np.isfinite(row['predicted_age'])
        assert 'untrained_model' in row['qc_flag'].split(';')
        label = ''.join(c for c in name if c.isalnum())
        folder = root / 'out' / 'sub-01' / 'ses-1' / 'anat'
        assert list(folder.glob(f'*_space-T1w_model-{label}_desc-*_saliency.nii.gz'))
        assert list(folder.glob(f'*_space-MNI*_model-{label}_desc-*_saliency.nii.gz'))
    assert 'missing_modality' in found['amagenet.plumbing']['qc_flag'].split(';')


def test_untrained_models_are_no_default(tmp_path):
    from bids_brainage.bundles.bundle import resolve_bundle
    from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs

    for name in DEFAULT_MODELS:
        assert resolve_bundle(name, model_dirs(None)).status == 'trained'


def test_unknown_model_is_told_with_what_there_is(finished):
    root, _ = finished
    process = run('bids', 'out3', 'participant', '--models', 'nothing.here', cwd=root)
    assert process.returncode == 66
    assert 'volumes.adults' in process.stderr
