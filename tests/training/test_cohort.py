"""Training takes the files that prediction takes, and prepares the same arrays from them."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.interfaces.anatomical import CheckT1w, ExtractBrain
from bids_brainage.outputs.connectivity import choose_matrix
from bids_brainage.preprocessing.bold.quality import severe_flags
from bids_brainage.training.cache import prepare_rows
from bids_brainage.training.cohort import (
    Candidate,
    choice_sentences,
    find_candidates,
    keep_apart,
    problem_sentences,
)
from bids_brainage.training.prepare import input_block, with_regions
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import Item
from bids_brainage.training.studies import Study

SPACE = 'MNI152NLin2009aSym'
N_NODES = 6


def scan(root, subject='01', session='1'):
    name = f'sub-{subject}_ses-{session}_T1w.nii.gz'
    relative = f'sub-{subject}/ses-{session}/anat/{name}'
    entities = {'sub': subject, 'ses': session}
    return Scan(
        root / relative, relative, subject, session, None, entities, 'T1w', 'anat', Age(40.0)
    )


def declared(arch):
    return input_block(arch, make_recipe(arch, {}))


def write_matrix(output_dir, name, flags=(), freedom=100.0, n_nodes=N_NODES):
    """Write the correlations of a functional run with their side file."""
    path = output_dir / 'sub-01/ses-1/func' / f'sub-01_ses-1_{name}_relmat.tsv'
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[f'r{k}' for k in range(n_nodes)], *np.eye(n_nodes).tolist()]
    path.write_text('\n'.join('\t'.join(map(str, row)) for row in rows) + '\n')
    side = {'QualityFlags': list(flags), 'DegreesOfFreedom': freedom}
    path.with_suffix('.json').write_text(json.dumps(side))
    return path


@pytest.fixture
def runs(tmp_path):
    """A session of four runs, of which the first by name is not the one for a model."""

    def name(task, run, atlas='power2011'):
        return f'task-{task}_run-{run}_space-{SPACE}_atlas-{atlas}_stat-pearsoncorrelation'

    write_matrix(tmp_path, name('faces', 1), freedom=900.0)
    write_matrix(tmp_path, name('rest', 1), freedom=100.0)
    best = write_matrix(tmp_path, name('rest', 2), freedom=200.0)
    write_matrix(tmp_path, name('rest', 3), freedom=300.0, flags=['bold_motion'])
    write_matrix(tmp_path, name('rest', 4, 'aal'), freedom=500.0)
    anat = tmp_path / 'sub-01/ses-1/anat'
    anat.mkdir()
    (anat / f'sub-01_ses-1_space-{SPACE}_res-1_desc-affine_T1w.nii.gz').touch()
    return tmp_path, best


def graph_candidate(output_dir, n_nodes=N_NODES):
    block = {**declared('amagenet'), 'n_nodes': n_nodes}
    (found,) = find_candidates([scan(output_dir)], output_dir, output_dir, block)
    return found


def test_training_takes_the_matrix_that_prediction_takes(runs):
    """Rest before tasks, no severe flag, most degrees of freedom, the atlas asked for."""
    output_dir, best = runs
    found = graph_candidate(output_dir)
    assert found.problem == ''
    assert found.files['connectivity'] == best
    from_atlas = (output_dir / 'sub-01/ses-1/func').glob('*atlas-power2011*.tsv')
    assert choose_matrix(sorted(from_atlas), severe_flags()) == best


def test_regions_are_counted_in_the_connectivity_at_hand(runs):
    output_dir, best = runs
    people = [scan(output_dir, '02'), scan(output_dir)]  # the first has none
    data = [(Study('', '', output_dir, output_dir, own=True), people)]
    block = with_regions(declared('amagenet'), data, 'power2011')
    assert block['n_nodes'] == N_NODES
    (found,) = find_candidates(people[1:], output_dir, output_dir, block)
    assert found.problem == '' and found.files['connectivity'] == best
    nothing = with_regions(declared('amagenet'), data, 'schaefer')
    assert nothing == declared('amagenet')


def test_missing_connectivity_is_told_with_the_name_that_it_would_have(runs):
    output_dir, _ = runs
    (other,) = find_candidates(
        [scan(output_dir)], output_dir, output_dir, declared('amagenet'), atlas='schaefer'
    )
    assert '*_atlas-schaefer_stat-pearsoncorrelation_relmat.tsv' in other.problem
    assert 'connectivity' not in other.files
    regions = graph_candidate(output_dir, n_nodes=90).problem
    assert 'correlations of 90 regions' in regions and 'power2011 has 6' in regions
    (anat,) = output_dir.glob('sub-01/ses-1/anat/*_T1w.nii.gz')
    anat.unlink()
    assert f'*_space-{SPACE}_res-1_desc-affine_T1w.nii.gz' in graph_candidate(output_dir).problem


def z_scored_thick_scan(root):
    """Write a stripped scan of 5 mm slices, stored from the left, of mean 0, as a file."""
    shape, spacing = (180, 210, 32), np.array([-0.9, 0.9, 5.1])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 80.3, -94.7, -70.1
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing='ij')
    radii = (68, 82, 65)
    scaled = [a * s / r for a, s, r in zip(axes, spacing, radii, strict=True)]
    brain = sum(a**2 for a in scaled) < 1
    data = brain * (400 + 150 * np.sin(axes[0] / 9) * np.cos(axes[1] / 7))
    data = (data - data[brain].mean()) / data[brain].std()
    raw = scan(root)
    raw.path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), raw.path)
    return raw


def test_training_prepares_the_array_that_prediction_prepares(tmp_path):
    """A z-scored scan of thick slices, of which the program raises the intensities."""
    raw = z_scored_thick_scan(tmp_path / 'bids')
    work, output_dir = tmp_path / 'work', tmp_path / 'out'
    work.mkdir()
    check = CheckT1w(t1w=str(raw.path), memo=str(work / 'memo.json'))
    checked = check.run(cwd=str(work)).outputs
    brain = ExtractBrain(t1w=checked.t1w, facts=checked.facts).run(cwd=str(work)).outputs
    mask = output_dir / 'sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii.gz'
    mask.parent.mkdir(parents=True)
    nib.save(nib.load(brain.mask), mask)
    block = declared('densenet169_clinical')
    predicted = prepare_input(
        block, {'t1w_uncorrected': checked.t1w, 'mask_native': brain.mask}
    ).arrays
    (candidate,) = find_candidates([raw], tmp_path / 'bids', output_dir, block)
    assert candidate.problem == ''
    ((trained,),) = prepare_rows(block, candidate.files)
    assert predicted[0].min() == 0 and predicted[0].max() > 1
    np.testing.assert_array_equal(trained, predicted[0])


@pytest.mark.parametrize(
    ('excluded', 'left_out'),
    [
        (('stop',), {'01': 'flagged mask_volume'}),
        (('stop', 'anisotropic'), {'01': 'flagged mask_volume', '02': 'flagged anisotropic'}),
        (('anisotropic',), {'02': 'flagged anisotropic'}),
        ((), {}),
    ],
)
def test_flagged_images_are_left_out_without_stopping_the_training(tmp_path, excluded, left_out):
    measured = {
        '01': {'mask_ml': 400.0, 'slice_thickness_mm': 1.0},
        '02': {'mask_ml': 1400.0, 'slice_thickness_mm': 3.0},
        '03': {'mask_ml': 1400.0, 'slice_thickness_mm': 1.0},
    }
    scans = [scan(tmp_path, subject) for subject in (*measured, '04')]
    for one in scans:
        anat = one.path.parent
        anat.mkdir(parents=True)
        stem = one.path.name.removesuffix('_T1w.nii.gz')
        (anat / f'{stem}_space-{SPACE}_res-1_label-GM_desc-modulated_probseg.nii.gz').touch()
        if one.subject in measured:  # the last has images and no prediction
            side = json.dumps({'Quality': measured[one.subject]})
            (anat / f'{stem}_brainage.json').write_text(side)
    found = find_candidates(
        scans, tmp_path, tmp_path, declared('resnet_crossvit'), exclude_flags=excluded
    )
    assert {c.item.participant: c.problem for c in found if c.problem} == left_out
    assert problem_sentences(found) == []
    told = choice_sentences(found)
    assert len(told) == len(left_out)
    assert all('1 scan: flagged' in sentence and 'sub-' in sentence for sentence in told)


def test_scans_of_a_person_are_five_years_apart_or_the_earliest_is_taken():
    ages = {'a': (50.0, 53.0, 55.5, 60.4, 60.6), 'b': (70.0, 70.0), 'c': (30.0,)}
    scans = [
        Candidate(Item(f'{who}{k}', who, None, age, 'F', ''), {})
        for who, own in ages.items()
        for k, age in enumerate(own)
    ]
    scans.append(Candidate(Item('a9', 'a', None, 20.0, 'F', ''), {}, 'no brain mask'))
    found = keep_apart(scans[::-1], 5.0)
    assert {c.item.source for c in found if not c.problem} == {'a0', 'a2', 'a4', 'b0', 'c0'}
    assert [c.item.source for c in found] == [c.item.source for c in scans[::-1]]
    assert problem_sentences(found)[0].startswith('1 scan: no brain mask')
    assert '3 scans: too close in time' in choice_sentences(found)[0]
    assert keep_apart(scans, 0.0) == scans
