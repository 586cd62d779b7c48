"""fMRIPrep derivatives: found by their names, read, and taken to connectivity."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bold_phantom import make_phantom, template

from bids_brainage.dataset.derivatives import find_fmriprep_bold
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import match_series
from bids_brainage.errors import InvalidDatasetError, MissingInputError
from bids_brainage.inputs.connectivity import read_connectivity
from bids_brainage.outputs.files import write_tsv
from bids_brainage.preprocessing.bold.confounds import build_confounds

TREES = Path(__file__).parents[3] / 'shared' / 'data' / 'bids-trees'
SPACE = 'MNI152NLin2009cAsym'
OTHER = 'MNI152NLin6Asym'
CONFOUNDS = 'desc-confounds_timeseries.tsv'


def _scan(name='sub-01_task-rest_run-1_bold.nii.gz', folder='sub-01/func'):
    entities = dict(part.split('-', 1) for part in name.split('.')[0].split('_')[:-1])
    return Scan(
        path=Path('/raw', folder, name),
        relative=f'{folder}/{name}',
        subject=entities['sub'],
        session=entities.get('ses'),
        run=entities.get('run'),
        entities=entities,
        suffix='bold',
        datatype='func',
    )


def _tree(root, *names, content=b'x'):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _run(run, *spaces, folder='sub-01/func', stem='sub-01_task-rest'):
    names = [f'{folder}/{stem}_run-{run}_{CONFOUNDS}']
    for space in spaces:
        names += [
            f'{folder}/{stem}_run-{run}_space-{space}_desc-{d}.nii.gz'
            for d in ('preproc_bold', 'brain_mask', 'aseg_dseg')
        ]
    return names


def test_preferred_space_and_own_run(tmp_path):
    _tree(tmp_path, *_run(1, SPACE, OTHER), *_run(2, OTHER))
    first = find_fmriprep_bold(tmp_path, _scan())
    assert first.space == SPACE
    assert first.bold.name == f'sub-01_task-rest_run-1_space-{SPACE}_desc-preproc_bold.nii.gz'
    assert first.mask.name == f'sub-01_task-rest_run-1_space-{SPACE}_desc-brain_mask.nii.gz'
    assert first.confounds.name == f'sub-01_task-rest_run-1_{CONFOUNDS}'
    second = find_fmriprep_bold(tmp_path, _scan('sub-01_task-rest_run-2_bold.nii.gz'))
    assert second.space == OTHER
    assert second.confounds.name == f'sub-01_task-rest_run-2_{CONFOUNDS}'
    swapped = find_fmriprep_bold(tmp_path, _scan(), spaces=(OTHER, SPACE))
    assert swapped.space == OTHER


def test_resolutions_in_order(tmp_path):
    stem = f'sub-01/func/sub-01_task-rest_run-1_space-{SPACE}'
    _tree(tmp_path, *_run(1, SPACE), f'{stem}_res-2_desc-preproc_bold.nii.gz')
    _tree(tmp_path, f'{stem}_res-1_desc-preproc_bold.nii.gz')
    found = find_fmriprep_bold(tmp_path, _scan())
    assert found.resolution == '2'
    assert found.mask is None  # the mask there is of another grid


def test_run_numbers_match_with_and_without_zeros_and_echoes_are_combined(tmp_path):
    _tree(tmp_path, *_run('01', SPACE))
    found = find_fmriprep_bold(tmp_path, _scan('sub-01_task-rest_run-1_echo-2_bold.nii.gz'))
    assert 'run-01' in found.bold.name


def test_sessions_and_old_confound_names(tmp_path):
    folder, stem = 'sub-01/ses-a/func', 'sub-01_ses-a_task-rest'
    names = _run(1, OTHER, folder=folder, stem=stem)
    names[0] = names[0].replace('timeseries', 'regressors')
    _tree(tmp_path, *names)
    scan = _scan('sub-01_ses-a_task-rest_run-1_bold.nii.gz', folder)
    assert find_fmriprep_bold(tmp_path, scan).confounds.name.endswith('regressors.tsv')


def test_missing_confounds_say_what_was_expected(tmp_path):
    _tree(tmp_path, *_run(1, SPACE)[1:], *_run(2, SPACE))
    with pytest.raises(MissingInputError, match=f'no confound table.*{CONFOUNDS}'):
        find_fmriprep_bold(tmp_path, _scan())
    (tmp_path / _run(1)[0]).write_bytes(b'')
    with pytest.raises(MissingInputError, match='is empty or a link'):
        find_fmriprep_bold(tmp_path, _scan())


def test_run_without_confounds_is_taken_from_the_raw_series_and_says_so(tmp_path):
    _tree(tmp_path, *_run(1, SPACE, OTHER), *_run(2, SPACE, OTHER)[1:])
    runs = [_scan(), _scan('sub-01_task-rest_run-2_bold.nii.gz')]
    t1w = _scan('sub-01_T1w.nii.gz', 'sub-01/anat')
    first, second = match_series(runs, [t1w], ('fmriprep', tmp_path))
    assert first.ready.space == SPACE
    assert first.source_uri.startswith('bids:fmriprep:sub-01/func/')
    assert first.note == ''
    assert (second.ready, second.source_uri) == (None, runs[1].uri)
    assert second.note.startswith('not taken from fmriprep, the raw series is used:')
    assert f'expected the same name with {CONFOUNDS}' in second.note


def test_missing_series_say_what_is_there(tmp_path):
    _tree(tmp_path, *_run(1, 'T1w'))
    with pytest.raises(MissingInputError, match=r'in space T1w only.*--output-spaces'):
        find_fmriprep_bold(tmp_path, _scan())
    with pytest.raises(MissingInputError, match='found none'):
        find_fmriprep_bold(tmp_path, _scan('sub-01_task-rest_run-3_bold.nii.gz'))
    with pytest.raises(InvalidDatasetError, match='not a folder'):
        find_fmriprep_bold(tmp_path / 'none', _scan())


def _write_run(folder, stem, n_volumes, grid_mm, seed):
    """Write one real-shaped run: series, mask, confounds with fMRIPrep's n/a, side file."""
    phantom = make_phantom(n_volumes, seed=seed, shape=(26, 30, 22), voxel_mm=7.0)
    _, inside, affine = template()
    step = grid_mm // 2
    brain = inside[::step, ::step, ::step]
    grid = affine @ np.diag([step, step, step, 1.0])
    rng = np.random.default_rng(seed)
    waves = np.zeros((*brain.shape, n_volumes), np.float32)
    waves[brain] = 500 + rng.normal(0, 4, (int(brain.sum()), n_volumes))
    world = np.indices(brain.shape).reshape(3, -1).T @ grid[:3, :3].T + grid[:3, 3]
    for region, signal in zip(phantom.atlas.regions, phantom.signals.T, strict=True):
        near = ((world - np.array(region.xyz)) ** 2).sum(axis=1) < 11**2
        waves[near.reshape(brain.shape) & brain] += 10 * signal.astype(np.float32)
    image = nib.Nifti1Image(waves, grid)
    image.header.set_zooms((grid_mm,) * 3 + (2.0,))
    image.header.set_xyzt_units('mm', 'sec')
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(image, folder / f'{stem}_space-{SPACE}_res-2_desc-preproc_bold.nii.gz')
    nib.save(
        nib.Nifti1Image(brain.astype(np.uint8), grid),
        folder / f'{stem}_space-{SPACE}_res-2_desc-brain_mask.nii.gz',
    )
    half = np.arange(int(brain.sum())) % 2 == 0
    table = build_confounds(waves[brain], {'white_matter': half, 'csf': ~half}, phantom.motion)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    write_tsv(folder / f'{stem}_{CONFOUNDS}', rows)
    side = {'RepetitionTime': 2.0, 'SkullStripped': False}
    name = f'{stem}_space-{SPACE}_res-2_desc-preproc_bold.json'
    (folder / name).write_text(json.dumps(side))
    return phantom


def test_series_of_fmriprep_goes_to_connectivity(tmp_path):
    from nipype.pipeline import engine as pe

    from bids_brainage.workflows.bold import (
        CONNECTIVITY,
        init_bold_derivatives_wf,
        init_bold_report_wf,
        init_fmriprep_bold_wf,
    )

    stem = 'sub-01_task-rest_run-1'
    phantom = _write_run(tmp_path / 'prep' / 'sub-01' / 'func', stem, 60, 4, seed=2)
    table = tmp_path / 'atlas.tsv'
    image = _atlas_image(phantom.atlas, tmp_path / 'phantom.nii.gz', table)
    scan = _scan()
    found = find_fmriprep_bold(tmp_path / 'prep', scan)
    out = tmp_path / 'out'
    shared = {
        'source_file': str(scan.path),
        'output_dir': out,
        'space': found.space,
        'atlas': str(image),
        'atlas_table': table,
    }
    bold = init_fmriprep_bold_wf(space=found.space, atlas=str(image), atlas_table=table)
    node = bold.inputs.inputnode
    node.bold, node.mask = str(found.bold), str(found.mask)
    node.confounds, node.metadata = str(found.confounds), found.metadata
    save = init_bold_derivatives_wf(source_uri=scan.uri, preprocessed_here=False, **shared)
    report = init_bold_report_wf(**shared)
    workflow = pe.Workflow(name='whole', base_dir=str(tmp_path / 'work'))
    drawn = ('bold', 'mask', 'confounds', 'facts', 'correlation')
    workflow.connect(
        [
            (bold, save, [(f'outputnode.{f}', f'inputnode.{f}') for f in CONNECTIVITY]),
            (bold, report, [(f'outputnode.{f}', f'inputnode.{f}') for f in drawn]),
        ]
    )
    workflow.run()
    relmat = out / f'sub-01/func/{stem}_space-{SPACE}_atlas-phantom_stat-pearsoncorrelation'
    matrix = read_connectivity(Path(f'{relmat}_relmat.tsv'), n_nodes=12)
    networks = np.array(phantom.atlas.networks())
    same = (networks[:, None] == networks) & ~np.eye(12, dtype=bool)
    assert matrix[same].mean() > matrix[networks[:, None] != networks].mean() + 0.3
    side = json.loads(Path(f'{relmat}_relmat.json').read_text())
    assert side['Sources'] == [scan.uri]
    assert side['Quality']['n_volumes'] == 60
    assert 'bold_few_volumes' in side['QualityFlags']
    figures = sorted(p.name for p in (out / 'sub-01/figures').iterdir())
    assert figures == [f'{stem}_desc-carpet_bold.svg', f'{stem}_desc-connectivity_bold.svg']
    assert (out / 'atlas-phantom_dseg.tsv').read_text().startswith('index\tname\tnetwork')
    written = {p.name.removeprefix(stem + '_') for p in (out / 'sub-01/func').iterdir()}
    assert f'space-{SPACE}_atlas-phantom_stat-fisherz_relmat.tsv' in written
    assert f'space-{SPACE}_atlas-phantom_stat-mean_timeseries.json' in written
    assert not any('preproc' in name for name in written)


def _atlas_image(atlas, path, table):
    _, inside, affine = template()
    labels = np.zeros(inside.shape, np.int16)
    world = np.indices(labels.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    for region in atlas.regions:
        near = ((world - np.array(region.xyz)) ** 2).sum(axis=1) < 8**2
        labels[near.reshape(labels.shape)] = region.index
    nib.save(nib.Nifti1Image(labels, affine), path)
    write_tsv(table, [region.row() for region in atlas.regions])
    return path


@pytest.mark.shared
@pytest.mark.skipif(not TREES.is_dir(), reason='development data not there')
def test_names_of_a_published_tree(tmp_path):
    with tarfile.open(TREES / 'ds000001-fmriprep.tar.gz') as archive:
        members = [m for m in archive.getmembers() if '/sub-10/func' in m.name]
        archive.extractall(tmp_path, members, filter='data')
    root = tmp_path / 'ds000001-fmriprep'
    task = 'sub-10_task-balloonanalogrisktask'
    for run in (1, 2):
        scan = _scan(f'{task}_run-0{run}_bold.nii.gz', 'sub-10/func')
        with pytest.raises(MissingInputError, match='is empty or a link'):
            find_fmriprep_bold(root, scan)
        for path in (root / 'sub-10/func').glob(f'{task}_run-{run}_*'):
            if path.stat().st_size == 0:
                path.write_bytes(b'x')
        found = find_fmriprep_bold(root, scan)
        assert (found.space, found.resolution) == (SPACE, '2')
        assert f'_run-{run}_' in found.bold.name
        assert found.mask is not None
        assert found.confounds.name == f'{task}_run-{run}_{CONFOUNDS}'
        assert found.metadata['SkullStripped'] is False
