"""Functional runs through the program: rest beside T1w, failures, fMRIPrep, a fused model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import PLACES, RADIUS_MM, TR, make_phantom, template
from validator import errors_of

from bids_brainage.outputs import read_brainage
from bids_brainage.tsv import read_tsv

SPACE = 'MNI152NLin2009aSym'
MODELS = ('--model-dir', 'models', '--models', 'amagenet.tiny')
N_REGIONS = sum(map(len, PLACES.values()))


def run(root, *arguments):
    """Call the program as a user does."""
    return subprocess.run(
        [
            *(sys.executable, '-m', 'bids_brainage', 'bids'),
            *map(str, arguments),
            *('--sloppy', '--nprocs', '1', '-w', 'work', '--atlas', './regions.nii.gz'),
        ],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def write_atlas(path):
    """Write the regions of the phantom as a label image with its table."""
    t1w, _, affine = template()
    index = np.indices(t1w.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    labels = np.zeros(index.shape[1], np.uint8)
    places = [(network, xyz) for network, every in PLACES.items() for xyz in every]
    lines = ['index\tname\tnetwork']
    for number, (network, xyz) in enumerate(places, start=1):
        labels[((world - np.array(xyz)[:, None]) ** 2).sum(axis=0) <= RADIUS_MM**2] = number
        lines.append(f'{number}\t{network}{number}\t{network}')
    nib.save(nib.Nifti1Image(labels.reshape(t1w.shape), affine), path)
    path.with_name('regions.tsv').write_text('\n'.join(lines) + '\n')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Run one person: a session with a good and a corrupt series, one without any."""
    from bids_brainage.bundles.untrained import make_untrained_bundle

    root = tmp_path_factory.mktemp('bold')
    bids = root / 'bids'
    t1w, _, affine = template()
    for session in ('1', '2'):
        folder = bids / 'sub-01' / f'ses-{session}' / 'anat'
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(t1w, affine), folder / f'sub-01_ses-{session}_T1w.nii.gz')
    (bids / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    func = bids / 'sub-01' / 'ses-1' / 'func'
    func.mkdir()
    series = func / 'sub-01_ses-1_task-rest_bold.nii.gz'
    nib.save(make_phantom(40, shape=(28, 34, 24), voxel_mm=6.0).image, series)
    for task in ('rest', 'nback'):
        side = {'RepetitionTime': TR, 'TaskName': task}
        (bids / f'task-{task}_bold.json').write_text(json.dumps(side))
    broken = func / 'sub-01_ses-1_task-nback_bold.nii.gz'
    broken.write_bytes(series.read_bytes()[:5000])
    write_atlas(root / 'regions.nii.gz')
    make_untrained_bundle(
        'amagenet', 'tiny', root / 'models', shape=(32, 32, 32), n_nodes=N_REGIONS
    )
    return root, run(root, 'out', 'participant', *MODELS)


def rows(out):
    found = [r for p in sorted(out.rglob('*_brainage.tsv')) for r in read_brainage(p)]
    return {r['session_id']: r for r in found}


def side_of(out, session):
    table = next(out.glob(f'sub-01/ses-{session}/anat/*_brainage.json'))
    return json.loads(table.read_text())['Models']['amagenet.tiny']


def test_failed_series_costs_only_itself(finished):
    root, process = finished
    assert process.returncode == 1, process.stderr
    assert {s: r['status'] for s, r in rows(root / 'out').items()} == {
        'ses-1': 'ok',
        'ses-2': 'ok',
    }
    func = root / 'out/sub-01/ses-1/func'
    assert not list(func.glob('*nback*'))
    assert 'task-nback: failed' in process.stderr
    status = [
        row
        for path in (root / 'out/logs').glob('*/status.tsv')
        for row in read_tsv(path)
        if row['step'] == 'connectivity' and 'nback' in row['source']
    ]
    assert [row['status'] for row in status] == ['failed']
    assert 'nback' in status[0]['message']


def test_series_has_its_derivatives(finished):
    root, _ = finished
    func = root / 'out/sub-01/ses-1/func'
    prefix = 'sub-01_ses-1_task-rest'
    stats = ('mean_timeseries', 'pearsoncorrelation_relmat', 'fisherz_relmat')
    expected = {f'{prefix}_space-{SPACE}_atlas-regions_stat-{stat}.tsv' for stat in stats}
    expected |= {
        f'{prefix}_desc-confounds_timeseries.tsv',
        f'{prefix}_space-{SPACE}_res-2_desc-preproc_bold.nii.gz',
        f'{prefix}_space-{SPACE}_res-2_desc-brain_mask.nii.gz',
    }
    assert {p.name for p in func.iterdir() if p.suffix != '.json'} == expected
    assert (root / 'out/atlas-regions_dseg.tsv').is_file()
    side = json.loads(next(func.glob('*pearson*.json')).read_text())
    assert side['Sources'] == [f'bids:raw:sub-01/ses-1/func/{prefix}_bold.nii.gz']
    assert len(side['InputSHA256']) == 64
    figures = {p.name for p in (root / 'out/sub-01/figures').glob('*_bold.svg')}
    assert figures == {
        f'{prefix}_desc-{what}_bold.svg' for what in ('carpet', 'connectivity', 'coregistration')
    }
    assert not list(func.glob('*_brainage.tsv'))


def test_networks_of_the_phantom_come_back(finished):
    root, _ = finished
    table = read_tsv(next((root / 'out/sub-01/ses-1/func').glob('*pearson*.tsv')))
    names = [row['name'] for row in table]
    matrix = np.array([[float(row[name]) for name in names] for row in table])
    network = np.array([name[0] for name in names])
    off = ~np.eye(len(names), dtype=bool)
    within = matrix[(network[:, None] == network) & off].mean()
    apart = matrix[(network[:, None] == 'A') & (network != 'A')].mean()
    assert within > apart + 0.3


def test_fused_model_gets_the_matrix_of_its_session(finished):
    root, _ = finished
    out = root / 'out'
    facts, row = side_of(out, '1'), rows(out)['ses-1']
    assert facts['Modality'] == 'both'
    assert 0 < facts['FusionGate'] < 1
    assert facts['Connectivity'].startswith('bids::sub-01/ses-1/func/sub-01_ses-1_task-rest')
    assert 'missing_modality' not in row['qc_flag']
    assert 'bold_few_volumes' in row['qc_flag'].split(';')
    model = '_model-amagenettiny_'
    anat = out / 'sub-01/ses-1/anat'
    nodes = read_tsv(next(anat.glob(f'*_atlas-regions{model}desc-nodes_saliency.tsv')))
    weight = [float(row['importance']) for row in nodes]
    assert [row['network'] for row in nodes] == ['A'] * 4 + ['B'] * 4 + ['C'] * 4
    assert sum(weight) == pytest.approx(1, abs=1e-5)
    assert int(nodes[int(np.argmax(weight))]['rank']) == 1
    structures = read_tsv(next(anat.glob(f'*_atlas-structures{model}desc-regions_saliency.tsv')))
    assert {row['name'] for row in structures} >= {'cortex', 'thalamus', 'lateral_ventricle'}
    assert max(float(r['importance']) for r in structures if r['importance'] != 'n/a') > 0
    image = nib.load(next(anat.glob(f'*_space-{SPACE}_res-1{model}desc-nodes_saliency.nii.gz')))
    centre = np.linalg.inv(image.affine) @ [*PLACES['B'][0], 1]
    painted = float(image.dataobj[tuple(np.round(centre[:3]).astype(int))])
    assert painted == pytest.approx(weight[4], rel=1e-3)
    assert list(anat.glob(f'*_space-T1w{model}desc-nodes_saliency.nii.gz'))


def test_session_without_series_is_predicted_without_and_says_so(finished):
    root, _ = finished
    facts, row = side_of(root / 'out', '2'), rows(root / 'out')['ses-2']
    assert facts['Modality'] == 'structural'
    assert facts['FusionGate'] == 0
    assert facts['Note'] == 'predicted without connectivity: its session has no BOLD series'
    assert 'missing_modality' in row['qc_flag'].split(';')


def test_page_shows_the_series_and_what_failed(finished):
    root, _ = finished
    page = (root / 'out/sub-01.html').read_text()
    for text in ('Connectivity was measured', 'Volumes kept', 'Short functional scan', 'nback'):
        assert text in page
    for title in ('Signal over time', 'Functional image on the T1w', 'Which connections mattered'):
        assert title in page
    assert 'Gauss-Newton' in page
    assert 'amagenet.tiny' in page


def test_output_passes_the_validator(finished):
    root, _ = finished
    assert errors_of(root / 'out') == []


def test_finished_series_is_not_done_again(finished):
    root, _ = finished
    arguments = ('out', 'participant', *MODELS, '--task-id', 'rest')
    before = {p: p.stat().st_mtime_ns for p in (root / 'out/sub-01').rglob('*bold*')}
    process = run(root, *arguments, '--dry-run')
    assert '2 T1w images, 0 to do' in process.stdout
    assert '1 BOLD series, 0 to do' in process.stdout
    process = run(root, *arguments)
    assert process.returncode == 0, process.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_atlas_that_does_not_fit_the_model_is_told(finished):
    root, _ = finished
    shutil.copytree(root / 'models', root / 'other')
    from bids_brainage.bundles.untrained import make_untrained_bundle

    make_untrained_bundle('amagenet', 'wide', root / 'other', shape=(32, 32, 32), n_nodes=20)
    process = run(
        root, 'out', 'participant', '--model-dir', 'other', '--models', 'amagenet.wide',
        '--task-id', 'rest', '--session-label', '1', '--saliency', 'none',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    table = next((root / 'out').glob('sub-01/ses-1/anat/*_brainage.json'))
    note = json.loads(table.read_text())['Models']['amagenet.wide']['Note']
    assert 'takes the correlations of 20 regions, the atlas regions has 12' in note


def fmriprep_tree(root):
    """Make derivatives from what the first run has written, under fMRIPrep's names."""
    made = root / 'out/sub-01/ses-1/func'
    func = root / 'prep/sub-01/ses-1/func'
    func.mkdir(parents=True)
    stem = 'sub-01_ses-1_task-rest'
    for kind in ('desc-preproc_bold', 'desc-brain_mask'):
        source = next(made.glob(f'*rest*{kind}.nii.gz'))
        for space in ('MNI152NLin2009cAsym', 'MNI152NLin6Asym'):
            shutil.copy(source, func / f'{stem}_space-{space}_res-2_{kind}.nii.gz')
    confounds = next(made.glob('*rest*confounds_timeseries.tsv'))
    shutil.copy(confounds, func / f'{stem}_desc-confounds_timeseries.tsv')


def test_fmriprep_series_is_preferred_and_gives_the_same_matrix(finished):
    root, _ = finished
    fmriprep_tree(root)
    process = run(
        root, 'out2', 'participant', *MODELS, '--task-id', 'rest', '--session-label', '1',
        '--derivatives', 'fmriprep=prep', '--saliency', 'none',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    func = root / 'out2/sub-01/ses-1/func'
    found = next(func.glob('*space-MNI152NLin2009cAsym*pearson*.tsv'))
    side = json.loads(found.with_suffix('.json').read_text())
    assert side['Sources'][0].startswith('bids:fmriprep:sub-01/ses-1/func/')
    assert not list(func.glob('*desc-preproc_bold*'))
    links = json.loads((root / 'out2/dataset_description.json').read_text())['DatasetLinks']
    assert 'fmriprep' in links
    own = next((root / 'out/sub-01/ses-1/func').glob('*pearson*.tsv'))
    first, second = read_tsv(own), read_tsv(found)
    values = [[float(row[n]) for row in t for n in list(row)[1:]] for t in (first, second)]
    assert np.corrcoef(*values)[0, 1] > 0.99
    assert side_of(root / 'out2', '1')['Modality'] == 'both'


def test_anat_only_leaves_series_out(finished):
    root, _ = finished
    process = run(root, 'out3', 'participant', *MODELS, '--anat-only', '--dry-run')
    assert 'BOLD' not in process.stdout
    assert '2 T1w images, 2 to do' in process.stdout
