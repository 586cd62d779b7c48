"""Scans of thick slices: recognised, predicted without registration, and simulated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import template

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.dataset.header import is_thick_axial
from bids_brainage.inference.predict import predict
from bids_brainage.outputs import read_brainage

SAME_AGE = 1e-3  # years
SHAPE = (64, 80, 32)
NAME = 'densenet169_clinical.tiny'


def run(root, *arguments):
    """Call the program as a user does."""
    return subprocess.run(
        [sys.executable, '-m', 'bids_brainage', 'bids', 'out', 'participant', *arguments],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def image(shape, spacing, codes='RAS'):
    """Return an empty image whose stored axes have these voxel edges and directions."""
    affine = np.eye(4)
    for axis, (edge, code) in enumerate(zip(spacing, codes, strict=True)):
        place = next(i for i, pair in enumerate(('LR', 'PA', 'IS')) if code in pair)
        affine[:3, axis] = 0
        affine[place, axis] = edge if code in 'RAS' else -edge
    return nib.Nifti1Image(np.zeros(shape, np.uint8), affine)


@pytest.mark.parametrize(
    ('spacing', 'codes', 'thick'),
    [
        ((1, 1, 1), 'RAS', False),
        ((0.9, 0.9, 5), 'RAS', True),
        ((1, 1, 3), 'LPS', True),
        ((1, 1, 2.9), 'RAS', False),
        ((3, 3, 3), 'RAS', False),
        ((2.2, 2.2, 3), 'RAS', False),
        ((1, 1, 5), 'RIA', False),  # coronal slices
        ((5, 1, 1), 'SRA', True),  # axial slices stored first
    ],
)
def test_header_tells_thick_axial_slices(tmp_path, spacing, codes, thick):
    nib.save(image((8, 9, 10), spacing, codes), tmp_path / 'x.nii.gz')
    assert is_thick_axial(tmp_path / 'x.nii.gz') is thick


def test_unreadable_file_is_not_thick(tmp_path):
    (tmp_path / 'x.nii.gz').write_bytes(b'no image')
    assert not is_thick_axial(tmp_path / 'x.nii.gz')
    (tmp_path / 'x.nii').write_bytes(b'\x5c\x01\0\0' + bytes(60))  # cut within its header
    assert not is_thick_axial(tmp_path / 'x.nii')
    assert not is_thick_axial(tmp_path / 'none.nii.gz')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Run a skull-stripped head of 4 mm axial slices with an untrained model of System C."""
    root = tmp_path_factory.mktemp('clinical')
    t1w, _, affine = template()
    thick = t1w[:, :, : t1w.shape[2] // 2 * 2].reshape(*t1w.shape[:2], -1, 2).mean(axis=3)
    affine = affine @ np.diag([1, 1, 2, 1])
    folder = root / 'bids' / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(thick, affine), folder / 'sub-01_T1w.nii.gz')
    (root / 'bids' / 'dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    make_untrained_bundle('densenet169_clinical', 'tiny', root / 'models', shape=SHAPE)
    options = ('--model-dir', 'models', '--models', NAME, '--saliency', 'gradcam', '-w', 'work')
    return root, options, run(root, *options, '--nprocs', '1')


def test_thick_slices_are_not_registered(finished):
    root, _, process = finished
    assert process.returncode == 0, process.stderr
    names = {p.name for p in (root / 'out/sub-01/anat').iterdir() if p.suffix != '.json'}
    assert names == {
        'sub-01_brainage.tsv',
        'sub-01_desc-brain_mask.nii.gz',
        'sub-01_space-T1w_model-densenet169clinicaltiny_desc-gradcam_saliency.nii.gz',
    }
    assert not list((root / 'work').rglob('register'))
    row = read_brainage(root / 'out/sub-01/anat/sub-01_brainage.tsv')[0]
    assert row['status'] == 'ok'
    assert 'anisotropic' not in row['qc_flag']
    assert 'without registration' in (root / 'out/logs/CITATION.md').read_text()
    page = (root / 'out/sub-01.html').read_text()
    assert 'Brain mask' in page and 'Registration to the template' not in page


def test_age_rests_on_the_raw_image(finished):
    root, _, _ = finished
    anat = root / 'out/sub-01/anat'
    files = {
        't1w_uncorrected': root / 'bids/sub-01/anat/sub-01_T1w.nii.gz',
        'mask_native': anat / 'sub-01_desc-brain_mask.nii.gz',
    }
    expected = predict(load_bundle(root / 'models' / NAME), files, device='cpu', saliency=())
    row = read_brainage(anat / 'sub-01_brainage.tsv')[0]
    assert row['predicted_age'] == pytest.approx(expected.age, abs=SAME_AGE)
    assert row['predicted_age_sd'] is None


def test_finished_scan_is_not_done_again(finished):
    root, options, _ = finished
    assert '1 T1w images, 0 to do' in run(root, *options, '--dry-run').stdout
    # a scan of thick slices holds no thinner ones: the option changes nothing for it
    again = run(root, *options, '--dry-run', '--synthetic-slices')
    assert '1 T1w images, 0 to do' in again.stdout


def test_synthetic_slices_need_a_model_of_thick_slices(finished):
    root, _, _ = finished
    process = run(root, '--synthetic-slices', '--dry-run')
    assert process.returncode == 2
    assert 'Name one with --models' in process.stderr


def test_research_scan_as_the_thick_scans_that_it_contains(finished, tmp_path):
    """2 mm planes, every fourth kept: four scans of 8 mm; the age is their mean."""
    root, _, _ = finished
    t1w, inside, affine = template()
    files = {'t1w_uncorrected': tmp_path / 't1w.nii', 'mask_native': tmp_path / 'mask.nii'}
    nib.save(nib.Nifti1Image(t1w, affine), files['t1w_uncorrected'])
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), files['mask_native'])
    bundle = load_bundle(root / 'models' / NAME)
    found = predict(bundle, files, device='cpu', saliency=(), synthetic_slices=True)
    ages = []
    for offset in range(4):
        kept = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, offset], [0, 0, 0, 1]])
        part = {}
        for name, data in (('t1w_uncorrected', t1w), ('mask_native', inside.astype(np.uint8))):
            part[name] = tmp_path / f'{name}_{offset}.nii'
            nib.save(nib.Nifti1Image(data[:, :, offset::4], kept), part[name])
        ages.append(predict(bundle, part, device='cpu', saliency=()).age)
    assert found.n_scans == 4
    assert found.age == pytest.approx(np.mean(ages), abs=SAME_AGE)
    assert found.sd == pytest.approx(np.std(ages, ddof=1), abs=SAME_AGE)


def test_number_of_synthetic_scans_stands_in_the_side_file(finished):
    root, _, _ = finished
    side = json.loads((root / 'out/sub-01/anat/sub-01_brainage.json').read_text())
    assert side['Models'][NAME]['SyntheticScans'] is None
