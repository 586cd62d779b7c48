"""T1w images that fMRIPrep prepared, as a person runs it: one row each, and what it says."""

import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from program import run, tree
from stats_tree import write_subject

from bids_brainage.outputs import read_brainage
from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.image import load_canonical, load_image

OPTIONS = ('--nprocs', '2', '--sloppy', '-w', 'work', '--skip-bids-validation')
RUNS = ('own', 'out')
PREPARED = ('--derivatives', 'fmriprep=prep')
FLAG = 'external_preprocessing'
OTHER_FIELD = (0.8, 1.2)
"""What the corrected image is multiplied with from left to right: another bias correction."""


def participant(root, out, *more, bids='bids'):
    return run(bids, out, 'participant', *OPTIONS, *more, cwd=root)


def rows(root, out):
    return [row for p in sorted((root / out).rglob('*_brainage.tsv')) for row in read_brainage(p)]


def side(root, out, name='sub-01_brainage.json'):
    (path,) = (root / out).rglob(name)
    return json.loads(path.read_text())


def prepare(root, **facts):
    """Write what fMRIPrep would: an image corrected in another way than here, and our own mask."""
    target, stem = root / 'prep/sub-01/anat', 'sub-01'
    target.mkdir(parents=True)
    (raw,) = (root / 'bids').rglob('sub-01_T1w.nii.gz')
    (found,) = (root / 'own').rglob('sub-01_desc-brain_mask.nii.gz')
    data, affine, _ = load_canonical(raw)
    mask, _ = load_image(found)
    clean = correct_bias(data, affine, mask > 0)[0]
    clean *= np.linspace(*OTHER_FIELD, len(clean), dtype=np.float32)[:, None, None]
    nib.save(nib.Nifti1Image(clean, affine), target / f'{stem}_desc-preproc_T1w.nii.gz')
    shutil.copy(found, target / f'{stem}_desc-brain_mask.nii.gz')
    (target / f'{stem}_desc-brain_mask.json').write_text(json.dumps({'Type': 'Brain', **facts}))


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """One simulated head, run as it is and from what fMRIPrep made of it."""
    root = tmp_path_factory.mktemp('prepared')
    subprocess.run(
        [
            sys.executable, '-m', 'bids_brainage.simulation', 'bids', '--participants', '1',
            '--seed', '3', '--resolution', '3',
        ],
        cwd=root, check=True,
    )  # fmt: skip
    process = participant(root, 'own')
    assert process.returncode == 0, process.stderr
    prepare(root, RawSources=['sub-01/anat/sub-01_T1w.nii.gz'])
    process = participant(root, 'out', *PREPARED)
    assert process.returncode == 0, process.stderr
    return root


def test_one_row_under_the_name_of_the_raw_image_with_flag_and_sources(study):
    (own,), (row,) = rows(study, 'own'), rows(study, 'out')
    assert row['source'] == own['source'] == 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    assert (FLAG in row['qc_flag'].split(';'), FLAG in own['qc_flag'].split(';')) == (True, False)
    facts = side(study, 'out')
    prepared = [
        f'bids:fmriprep:sub-01/anat/sub-01_desc-{kind}.nii.gz'
        for kind in ('preproc_T1w', 'brain_mask')
    ]
    assert facts['Sources'] == [row['source'], *prepared]
    assert side(study, 'out', 'sub-01_volumes.json')['Sources'] == facts['Sources']
    names = {uri.rpartition('/')[2] for uri in facts['Sources']}
    assert set(facts['InputSHA256']) == names
    names = {p.relative_to(study / 'own') for p in (study / 'own/sub-01/anat').iterdir()}
    assert {p.relative_to(study / 'out') for p in (study / 'out/sub-01/anat').iterdir()} == names
    text = (study / 'out/logs/CITATION.md').read_text().replace('\n', ' ')
    assert 'taken from fMRIPrep derivatives' in text
    assert "the person's own space and without bias correction" in text
    assert 'deepbet' not in text.partition('## References')[0]


def test_volumes_and_their_age_are_those_of_the_raw_image(study):
    (own,), (row,) = rows(study, 'own'), rows(study, 'out')
    assert row['model'] == 'volumes.adults'
    assert row['predicted_age'] == own['predicted_age']
    tables = [next((study / out).rglob('sub-01_volumes.tsv')).read_text() for out in RUNS]
    assert tables[0] == tables[1]
    regions = [next((study / out).rglob('*desc-regions_dseg.nii.gz')) for out in RUNS]
    assert np.array_equal(*(load_image(path)[0] for path in regions))


def test_image_in_template_space_is_the_prepared_one(study):
    brains = [next((study / out).rglob('*desc-preproc_T1w.nii.gz')) for out in RUNS]
    own, prepared = (load_image(path)[0] for path in brains)
    inside = (own > 0) & (prepared > 0)
    ratio, place = prepared[inside] / own[inside], inside.nonzero()[0]
    left, right = np.quantile(place, (0.1, 0.9))
    low, high = OTHER_FIELD
    assert low < np.median(ratio[place < left]) < 1 < np.median(ratio[place > right]) < high


def test_steps_of_our_own_are_skipped_and_the_given_mask_is_kept(study):
    status = '\n'.join(p.read_text() for p in (study / 'out/logs').glob('*/status.tsv'))
    assert 'brain mask' in status and 'bias' not in status
    (given,) = (study / 'prep').rglob('*mask.nii.gz')
    (kept,) = (study / 'out').rglob('sub-01_desc-brain_mask.nii.gz')
    assert np.array_equal(load_image(given)[0], load_image(kept)[0])


def test_second_run_has_nothing_to_do_and_a_new_mask_is_taken(study, tmp_path):
    root = tmp_path / 'again'
    shutil.copytree(study, root)
    before = tree(root / 'out/sub-01')
    process = participant(root, 'out', *PREPARED)
    assert '1 were there already' in process.stderr + process.stdout
    assert tree(root / 'out/sub-01') == before
    (mask,) = (root / 'prep').rglob('*mask.nii.gz')
    data, affine = load_image(mask)
    data = data.copy()
    data[: data.shape[0] // 2, :, : data.shape[2] // 4] = 0
    nib.save(nib.Nifti1Image(data, affine), mask)
    process = participant(root, 'out', *PREPARED, '--dry-run')
    assert '1 T1w images, 1 to do' in process.stdout


def test_what_cannot_be_used_is_told_once_and_the_raw_image_is_run(study, tmp_path):
    root = tmp_path / 'odd'
    shutil.copytree(study, root, ignore=shutil.ignore_patterns('own', 'out', 'work'))
    (mask,) = (root / 'prep').rglob('*mask.nii.gz')
    data, affine = load_image(mask)
    nib.save(nib.Nifti1Image(data[:-1], affine), mask)
    process = participant(root, 'new', *PREPARED, '--dry-run')
    told = [line for line in process.stderr.splitlines() if 'not taken from fmriprep' in line]
    assert process.returncode == 0 and len(told) == 1
    size = ' x '.join(map(str, data.shape))
    assert f'expected {size} voxels' in told[0] and mask.name in told[0]
    assert '1 T1w images, 1 to do' in process.stdout


@pytest.mark.parametrize(('out', 'more'), [('own', ()), ('out', ('fmriprep=prep',))])
def test_image_and_freesurfer_give_rows_of_both_and_a_consensus(study, tmp_path, out, more):
    root = tmp_path / 'both'
    shutil.copytree(study, root)
    write_subject(root / 'fs', 'sub-01')
    process = participant(root, out, '--derivatives', *more, 'freesurfer=fs', '--consensus')
    assert process.returncode == 0, process.stderr
    found = {row['model']: row for row in rows(root, out)}
    assert set(found) == {'volumes.adults', 'tables.openneuro', 'consensus'}
    assert {row['status'] for row in found.values()} == {'ok'}
    assert found['tables.openneuro']['modality'] == 'table'
    ages = [found[name]['predicted_age'] for name in ('volumes.adults', 'tables.openneuro')]
    assert min(ages) < found['consensus']['predicted_age'] < max(ages)
