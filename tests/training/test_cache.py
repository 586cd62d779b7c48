"""Which files a training takes, and what its cache holds."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.models import model_info, trainable_models
from bids_brainage.training import cache
from bids_brainage.training.cache import build_cache, open_cache, prepare_rows
from bids_brainage.training.cohort import Candidate, derivative_files
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import Item

HALF_PRECISION = 1e-3
SPACE = 'MNI152NLin2009aSym'


def scan(root, subject='01', session='2'):
    name = f'sub-{subject}_ses-{session}_run-1_T1w.nii.gz'
    relative = f'sub-{subject}/ses-{session}/anat/{name}'
    entities = {'sub': subject, 'ses': session, 'run': '1'}
    return Scan(
        root / relative, relative, subject, session, '1', entities, 'T1w', 'anat', Age(40.0)
    )


@pytest.mark.parametrize(
    'arch', [name for name in trainable_models() if model_info(name).backend == 'torch']
)
def test_files_cover_what_the_input_kind_needs(arch, tmp_path):
    declared = input_block(arch, make_recipe(arch, {}))
    files = derivative_files(scan(tmp_path), tmp_path / 'out', declared)
    assert set(kind_of(declared).derivatives) == set(files)
    folder = tmp_path / 'out/sub-01/ses-2'
    inside = [path for role, path in files.items() if role != 't1w_uncorrected']
    assert all(folder in path.parents for path in inside)


def test_names_are_those_that_the_participant_level_writes(tmp_path):
    def names(arch, **options):
        declared = input_block(arch, make_recipe(arch, {}))
        files = derivative_files(scan(tmp_path), tmp_path, declared, **options)
        return {role: path.name for role, path in files.items()}

    stem = f'sub-01_ses-2_run-1_space-{SPACE}_res-1'
    modulated = {'gm_modulated': f'{stem}_label-GM_desc-modulated_probseg.nii.gz'}
    assert names('resnet_crossvit') == modulated
    assert names('vgg8') == {'t1w': f'{stem}_desc-affine_T1w.nii.gz'}
    assert names('vgg8', modality='aicbv') == {'t1w': f'{stem}_desc-aicbv_T1w.nii.gz'}
    assert names('densenet169_clinical') == {
        't1w_uncorrected': 'sub-01_ses-2_run-1_T1w.nii.gz',
        'mask_native': 'sub-01_ses-2_run-1_desc-brain_mask.nii.gz',
    }


def test_coarser_grid_keeps_the_corner():
    recipe = make_recipe('resnet_crossvit', {'data': {'coarsen': 2}})
    block, published = input_block('resnet_crossvit', recipe), model_info('resnet_crossvit').input
    assert block['shape'] == [42, 51, 42] and block['voxel_size_mm'] == [4.0, 4.0, 4.0]
    corner, expected = (np.array(b['affine']) @ [-0.5, -0.5, -0.5, 1] for b in (block, published))
    np.testing.assert_allclose(corner, expected)


def head(path, spacing, value=1.0):
    """Write a ball of brain of 80 mm radius with some structure, and its mask."""
    shape = (84, 84, round(168 / spacing))
    affine = np.diag([2.0, 2.0, spacing, 1.0])
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing='ij')
    distance = np.sqrt(sum((a * s) ** 2 for a, s in zip(axes, (2, 2, spacing), strict=True)))
    brain = (distance < 80) * (100 + 20 * np.sin(axes[0] / 5)) * value
    files = {'t1w_uncorrected': path / 't1w.nii.gz', 'mask_native': path / 'mask.nii.gz'}
    path.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(brain.astype(np.float32) + 3, affine), files['t1w_uncorrected'])
    nib.save(nib.Nifti1Image((distance < 80).astype(np.uint8), affine), files['mask_native'])
    return files


def test_research_scans_become_their_synthetic_slices(tmp_path):
    """At 2.4 mm, every third plane is kept: three scans with a slice distance of 7.2 mm."""
    declared = input_block('densenet169_clinical', make_recipe('densenet169_clinical', {}))
    files = head(tmp_path, 2.4)
    rows = prepare_rows(declared, files, synthetic=True)
    (whole,) = prepare_rows(declared, files)
    assert len(rows) == 3
    assert all(row[0].shape == whole[0].shape == (1, 80, 120, 40) for row in rows)
    assert not np.array_equal(rows[0][0], rows[1][0])
    for row in rows:
        assert np.corrcoef(row[0].ravel(), whole[0].ravel())[0, 1] > 0.9


def test_scans_of_thick_slices_are_taken_as_they_are(tmp_path):
    """As in prediction: only research scans contain others."""
    declared = input_block('densenet169_clinical', make_recipe('densenet169_clinical', {}))
    files = head(tmp_path, 6.0)
    (cut,) = prepare_rows(declared, files, synthetic=True)
    (whole,) = prepare_rows(declared, files)
    np.testing.assert_array_equal(cut[0], whole[0])


@pytest.fixture
def people(tmp_path):
    declared = input_block('densenet169_clinical', make_recipe('densenet169_clinical', {}))
    candidates = [
        Candidate(
            Item(f'bids:raw:{k}', str(k), None, 30.0 + k), head(tmp_path / str(k), 2.4, 1 + k)
        )
        for k in range(3)
    ]
    return declared, candidates


def test_cache_holds_what_was_prepared_and_is_reused(people, tmp_path):
    declared, candidates = people
    folder = tmp_path / 'cache'
    assert build_cache(folder, candidates, declared, synthetic=True, workers=2) == []
    found_cache = open_cache(folder)
    assert found_cache.sources == tuple(f'bids:raw:{k}' for k in (0, 0, 0, 1, 1, 1, 2, 2, 2))
    assert found_cache.ages.tolist() == [30, 30, 30, 31, 31, 31, 32, 32, 32]
    assert found_cache.rows_of({'bids:raw:1'}).tolist() == [3, 4, 5]
    expected = prepare_rows(declared, candidates[1].files, synthetic=True)
    found = np.asarray(found_cache.arrays[0][4], np.float32)
    np.testing.assert_allclose(found, expected[1][0], rtol=HALF_PRECISION, atol=HALF_PRECISION)
    written = (folder / 'input-0.bin').stat().st_mtime_ns
    build_cache(folder, candidates, declared, synthetic=True)
    assert (folder / 'input-0.bin').stat().st_mtime_ns == written
    path = Path(candidates[0].files['mask_native'])
    os.utime(path, ns=(1, 1))
    build_cache(folder, candidates, declared, synthetic=True)
    assert (folder / 'input-0.bin').stat().st_mtime_ns != written


def test_a_scan_that_cannot_be_prepared_costs_only_itself(people, tmp_path):
    declared, candidates = people
    empty = nib.load(candidates[1].files['mask_native'])
    nib.save(
        nib.Nifti1Image(np.zeros(empty.shape, np.uint8), empty.affine),
        candidates[1].files['mask_native'],
    )
    failed = build_cache(tmp_path / 'cache', candidates, declared)
    assert [candidate.item.participant for candidate, _ in failed] == ['1']
    assert failed[0][1]
    again = build_cache(tmp_path / 'cache', candidates, declared)
    assert again == failed
    assert set(open_cache(tmp_path / 'cache').sources) == {'bids:raw:0', 'bids:raw:2'}


def test_wrong_shape_is_named(people, tmp_path, monkeypatch):
    declared, candidates = people
    prepare = cache.prepare_rows
    monkeypatch.setattr(
        cache, 'prepare_rows', lambda *a, **k: [(x[0][..., 1:],) for x in prepare(*a, **k)]
    )
    failed = build_cache(tmp_path / 'cache', candidates, declared)
    assert len(failed) == 3 and 'expected (1, 80, 120, 40)' in failed[0][1]


def test_synthetic_scans_reach_a_coarser_grid(people):
    _, candidates = people
    recipe = make_recipe('densenet169_clinical', {'data': {'coarsen': 2}})
    declared = input_block('densenet169_clinical', recipe)
    rows = prepare_rows(declared, candidates[0].files, synthetic=True)
    assert len(rows) == 3 and rows[0][0].shape == (1, 40, 60, 20)
