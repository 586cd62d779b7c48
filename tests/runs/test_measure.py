"""Ages from tables of other programs, as a person runs it: no image, no workflow."""

import json

import nibabel as nib
import numpy as np
import pytest
from program import run, tree
from stats_tree import usual_cortex, write_fastsurfer, write_subject
from validator import errors_of

from bids_brainage.outputs import read_brainage
from bids_brainage.outputs.provenance import sha256_file

MODEL = 'tables.openneuro'
MUSE = range(4, 210)


def make_dataset(root):
    bids = root / 'bids'
    bids.mkdir(parents=True)
    (bids / 'dataset_description.json').write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    ages = {'01': 25, '02': 60, '03': 40, '04': 33, '05': 50, '06': 45}
    rows = ''.join(f'sub-{label}\t{age}\tF\n' for label, age in ages.items())
    (bids / 'participants.tsv').write_text('participant_id\tage\tsex\n' + rows)
    return bids


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Six people: usual, without a hemisphere and with a wrong eTIV, two visits, damaged..."""
    root = tmp_path_factory.mktemp('tables')
    make_dataset(root)
    surfer = root / 'fs'
    folder = write_subject(surfer, 'sub-01')
    (folder / 'mri').mkdir()
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[4:8, 5:9, 6:10] = 17  # left hippocampus
    nib.save(nib.MGHImage(labels, np.diag([-1.0, 1, 1, 1])), folder / 'mri' / 'aparc+aseg.mgz')
    write_subject(
        surfer, 'sub-02', version='freesurfer 6', sides={'lh': usual_cortex()}, eTIV=700000.0
    )
    for visit in ('sub-03_ses-a', 'sub-03_ses-b'):
        write_subject(surfer, visit, version='freesurfer 5.3')
    broken = write_subject(surfer, 'sub-04')
    (broken / 'stats' / 'aseg.stats').write_text('# cut short\n')
    write_fastsurfer(root / 'fast', 'sub-05')
    head = ','.join(['MRID', '600', '702', *map(str, MUSE)])
    volumes = ','.join(['250000', '1500000', *['8000'] * len(MUSE)])
    (root / 'dlmuse.csv').write_text(f'{head}\nsub-06_T1w.nii.gz,{volumes}\n')
    return root, call(root)


def call(root, *options):
    return run(
        'bids', 'out', 'participant', '--derivatives', 'freesurfer=fs', 'fastsurfer=fast',
        'dlmuse=dlmuse.csv', '-w', 'work', *options, cwd=root,
    )  # fmt: skip


def rows(root):
    found = [r for p in sorted((root / 'out').rglob('*_brainage.tsv')) for r in read_brainage(p)]
    return {(r['participant_id'], r['session_id']): r for r in found}


def flags(row):
    return set((row['qc_flag'] or '').split(';'))


def test_everybody_has_a_row_and_a_damaged_file_costs_its_own(finished):
    root, process = finished
    assert process.returncode == 1, process.stderr
    found = rows(root)
    assert {key: row['status'] for key, row in found.items()} == {
        ('sub-01', None): 'ok', ('sub-02', None): 'ok', ('sub-03', 'ses-a'): 'ok',
        ('sub-03', 'ses-b'): 'ok', ('sub-04', None): 'failed', ('sub-05', None): 'ok',
        ('sub-06', None): 'ok',
    }  # fmt: skip
    for row in found.values():
        assert row['modality'] == 'table'
        if row['status'] == 'ok':
            assert 3 < row['predicted_age'] < 90
            assert row['interval_low'] < row['predicted_age'] < row['interval_high']
            assert row['brain_age_gap'] == pytest.approx(row['predicted_age'] - row['age'])
    assert found['sub-06', None]['model'] == 'tables.ixi'
    assert found['sub-01', None]['source'] == 'bids:freesurfer:sub-01/stats/aseg.stats'
    assert 'expected a table of statistics' in process.stderr


def test_flags_tell_what_is_wrong_with_the_tables(finished):
    found = rows(finished[0])
    told = {'tables_head', 'tables_share', 'tables_hemisphere', 'tables_incomplete'}
    told |= {'tables_other_program'}
    assert flags(found['sub-01', None]).isdisjoint(told)
    two = flags(found['sub-02', None])
    assert {'tables_head', 'tables_share', 'tables_hemisphere'} <= two
    assert 'tables_incomplete' not in two
    assert {'tables_incomplete', 'tables_other_program'} <= flags(found['sub-05', None])


def test_the_same_tables_of_other_versions_give_the_same_age(finished):
    found = rows(finished[0])
    ages = [found[key]['predicted_age'] for key in (('sub-01', None), ('sub-03', 'ses-a'))]
    assert ages[0] == pytest.approx(ages[1], abs=1e-9)


def test_side_file_traces_the_number(finished):
    root, _ = finished
    table = root / 'out' / 'sub-01' / 'anat' / 'sub-01_rec-freesurfer_brainage.tsv'
    side = json.loads(table.with_suffix('.json').read_text())
    stats = root / 'fs' / 'sub-01' / 'stats'
    names = ('aseg.stats', 'lh.aparc.stats', 'rh.aparc.stats')
    hashes = {name: sha256_file(stats / name) for name in names}
    assert hashes.items() <= side['InputSHA256'].items()
    assert side['Sources'] == [f'bids:freesurfer:sub-01/stats/{name}' for name in names]
    facts = side['Models'][MODEL]
    row = rows(root)['sub-01', None]
    total = facts['BaseAge'] + sum(facts['Contributions'].values())
    assert total == pytest.approx(row['predicted_age'], abs=1e-6)
    assert facts['ReferenceAge'] == 25
    assert facts['Contributions']['Hippocampus'] != 0
    measures = table.with_name('sub-01_rec-freesurfer_measures.tsv').read_text()
    assert 'Left-Hippocampus\t4200.0\tmm3' in measures
    assert 'lh-cortex-thickness\t2.45\tmm' in measures
    description = json.loads((root / 'out' / 'dataset_description.json').read_text())
    assert description['DatasetLinks']['freesurfer'].endswith('/fs')
    assert 'FreeSurfer' in (root / 'out' / 'logs' / 'CITATION.md').read_text()


def test_contributions_are_painted_on_the_labels_of_the_program(finished):
    root, _ = finished
    folder = root / 'out' / 'sub-01' / 'anat'
    name = 'sub-01_rec-freesurfer_space-T1w_model-tablesopenneuro_desc-contribution_saliency'
    image = nib.load(folder / f'{name}.nii.gz')
    facts = json.loads((folder / 'sub-01_rec-freesurfer_brainage.json').read_text())['Models']
    years = np.unique(image.get_fdata())
    assert years[years != 0] == pytest.approx([facts[MODEL]['Contributions']['Hippocampus']])
    assert image.shape == (4, 4, 4)
    where = nib.affines.apply_affine(image.affine, [0, 0, 0])
    np.testing.assert_allclose(where, [-7, 5, 6])  # the corner in RAS
    assert not list((root / 'out' / 'sub-02').rglob('*_saliency.nii.gz'))


def test_map_is_on_the_page(finished):
    root, _ = finished
    page = (root / 'out' / 'sub-01.html').read_text()
    names = {path.name for path in (root / 'out' / 'sub-01' / 'figures').iterdir()}
    stem = 'sub-01_rec-freesurfer_model-tablesopenneuro_desc'
    assert names == {f'{stem}-contribution_T1w.svg', f'{stem}-summary_T1w.svg'}
    assert 'The brain, and what moved the age' in page
    assert 'Contributions to the predicted age' in page
    assert 'Contributions to the predicted age' not in (root / 'out' / 'sub-02.html').read_text()


def test_pages_show_the_age_and_the_regions(finished):
    root, _ = finished
    page = (root / 'out' / 'sub-01.html').read_text()
    assert 'tables of another program' in page and 'Hippocampus' in page
    assert 'Intracranial volume (eTIV)' in page
    assert 'expected a table of statistics' in (root / 'out' / 'sub-04.html').read_text()
    assert 'sub-06' in (root / 'out' / 'index.html').read_text()


def test_output_is_valid_bids(finished):
    assert errors_of(finished[0] / 'out') == []


def test_group_level_counts_tables_as_images(finished):
    root, _ = finished
    process = run('bids', 'out', 'group', '--include-flagged', cwd=root)  # made-up brains
    assert process.returncode == 0, process.stderr
    table = (root / 'out' / 'group_brainage.tsv').read_text()
    assert table.count('\ttable\t') == 7


def test_second_run_does_only_what_is_new(finished):
    root, _ = finished
    before = tree(root / 'out')
    again = call(root, '--participant-label', '01', '02', '05')
    assert again.returncode == 0, again.stderr
    assert '3 were there already' in again.stderr
    after = tree(root / 'out')
    assert {k: v for k, v in before.items() if 'sub-0' in k} == {
        k: v for k, v in after.items() if 'sub-0' in k
    }
    path = root / 'fs' / 'sub-01' / 'stats' / 'rh.aparc.stats'
    path.write_text(path.read_text().replace(' 2.2 ', ' 2.3 '))
    changed = call(root, '--participant-label', '01', '--dry-run')
    assert '1 tables of other programs, 1 to do' in changed.stdout


@pytest.mark.parametrize(
    ('options', 'status', 'said'),
    [
        (['--models', 'volumes.adults'], 2, 'takes images, and the dataset has none'),
        (['--models', MODEL, '--derivatives', 'dlmuse=dlmuse.csv'], 2, 'none were given'),
        (['--participant-label', '99'], 18, 'No participant sub-99'),
    ],
)
def test_what_cannot_be_done_is_told(finished, options, status, said):
    process = call(finished[0], '--dry-run', *options)
    assert process.returncode == status, process.stderr
    assert said in process.stderr
