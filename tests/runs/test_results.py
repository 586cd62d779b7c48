"""When a result counts as finished, and the rows of scans that failed."""

import json
from dataclasses import replace

import pytest
from report_tree import save_head

from bids_brainage.bundles.bundle import Bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.cli.parser import parse
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.names import log_dir
from bids_brainage.outputs import (
    StatusLog,
    brainage_row,
    config_hash,
    read_brainage,
    write_brainage,
)
from bids_brainage.outputs.provenance import sha256_file
from bids_brainage.runs.results import (
    _expected,
    crash_reason,
    draw_failed,
    finished,
    rows_of,
    table_path,
    write_failures,
)
from bids_brainage.tsv import read_tsv
from bids_brainage.workflows.participant import scan_workflow_name

RELATIVE = 'sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz'


@pytest.fixture(scope='module')
def bundle():
    return resolve_bundle('volumes.lifespan', model_dirs(None)[-1:])


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bids').mkdir()
    return parse(['bids', 'out', 'participant'], {})


@pytest.fixture
def digest(config):
    return config_hash(config.workflow.image_options())


@pytest.fixture
def scan(config):
    path = config.execution.bids_dir / RELATIVE
    path.parent.mkdir(parents=True)
    path.write_bytes(b'an image')
    entities = {'sub': '01', 'ses': '1'}
    return Scan(path, RELATIVE, '01', '1', None, entities, 'T1w', 'anat', Age(70.0))


@pytest.fixture
def done(config, scan, bundle, digest):
    """Leave behind what a run leaves behind."""
    out = config.execution.output_dir
    write_brainage(
        table_path(out, scan),
        [brainage_row(source=scan.uri, model=bundle.name, predicted_age=60.0, status='ok')],
        models={
            bundle.name: {
                'WeightsSHA256': bundle.weights_sha256,
                'BundleConfigHash': bundle.metadata['config_hash'],
                'Conformal': bundle.metadata['conformal'],
                'BiasCorrection': bundle.metadata['bias_correction'],
            }
        },
        metadata={
            'ConfigurationHash': digest,
            'RandomSeed': config.seeds.random_seed,
            'InputSHA256': sha256_file(scan.path),
        },
    )
    for path in _expected(scan, bundle, config):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(b'x')
    return out


def test_complete_result_is_finished(done, scan, bundle, digest, config):
    assert finished(done, scan, bundle, digest, config)
    assert rows_of(done, [scan], [bundle.name])[0]['predicted_age'] == 60


def test_nothing_is_not_finished(config, scan, bundle, digest):
    assert not finished(config.execution.output_dir, scan, bundle, digest, config)
    assert rows_of(config.execution.output_dir, [scan], [bundle.name]) == []


@pytest.mark.parametrize(
    'field', ['weights_sha256', 'config_hash', 'conformal', 'bias_correction']
)
def test_another_bundle_of_the_same_name_starts_anew(done, scan, bundle, digest, config, field):
    other = Bundle(bundle.path, bundle.metadata | {field: 'another'})
    assert not finished(done, scan, other, digest, config)


def test_other_options_and_seeds_start_anew(done, scan, bundle, digest, config):
    assert not finished(done, scan, bundle, digest[::-1], config)
    seeded = replace(config, seeds=replace(config.seeds, random_seed=7))
    assert not finished(done, scan, bundle, digest, seeded)


def test_changed_image_starts_anew(done, scan, bundle, digest, config):
    scan.path.write_bytes(b'another image')
    assert not finished(done, scan, bundle, digest, config)


def test_any_missing_file_starts_anew(done, scan, bundle, digest, config):
    files = [done / path for path in _expected(scan, bundle, config)]
    names = ' '.join(path.name for path in files)
    for part in ('desc-preproc_T1w', 'desc-brain_mask', 'desc-modulated_probseg', 'saliency'):
        assert part in names
    for path in [*files, table_path(done, scan), table_path(done, scan).with_suffix('.json')]:
        content = path.read_bytes()
        path.unlink()
        assert not finished(done, scan, bundle, digest, config), path.name
        path.write_bytes(content)
    assert finished(done, scan, bundle, digest, config)


def test_maps_count_only_when_they_were_asked_for(done, scan, bundle, digest, config):
    for path in done.rglob('*saliency*'):
        path.unlink()
    assert not finished(done, scan, bundle, digest, config)
    plain = replace(config, workflow=replace(config.workflow, saliency=()))
    assert finished(done, scan, bundle, digest, plain)


def test_failed_row_is_not_finished(done, scan, bundle, digest, config):
    row = brainage_row(source=scan.uri, model=bundle.name, status='failed')
    write_brainage(table_path(done, scan), [row])
    assert not finished(done, scan, bundle, digest, config)


def plan_of(scan, bundle, unreadable=()):
    from bids_brainage.runs.participant import Plan

    return Plan((scan,), (bundle,), ((scan, (bundle,)),), tuple(unreadable))


def write_crash(config, scan, *lines):
    folder = config.execution.output_dir / log_dir(config.execution.run_id, '01', '1')
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n'.join([f'Node: wf.{scan_workflow_name(scan)}.anat_wf.check', *lines])
    (folder / 'crash-check.txt').write_text(text)


def test_failures_get_rows_and_reasons(config, scan, bundle, digest):
    write_crash(
        config, scan,
        'ValueError: deep inside',
        'bids_brainage.errors.UnusableImageError: sub-01: the field of view is 30 mm',
        'nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised',
    )  # fmt: skip
    status = StatusLog(config.execution.output_dir, config.execution.run_id)
    other = replace(scan, relative='sub-02/anat/sub-02_T1w.nii.gz', subject='02', session=None,
                    entities={'sub': '02'})  # fmt: skip
    plan = plan_of(scan, bundle, [(other, 'is empty (0 bytes)')])
    assert write_failures(config, plan, digest, status, '') == 2
    for one, age in ((scan, 70.0), (other, 70.0)):
        (row,) = read_brainage(table_path(config.execution.output_dir, one))
        assert (row['status'], row['predicted_age'], row['age']) == ('failed', None, age)
        assert row['model'] == bundle.name
    table = next(config.execution.output_dir.rglob('status.tsv'))
    messages = {row['source']: row['message'] for row in read_tsv(table)}
    assert messages[scan.uri] == 'sub-01: the field of view is 30 mm'
    assert messages[other.uri] == 'is empty (0 bytes)'


def test_finished_scans_are_no_failures(done, config, scan, bundle, digest):
    status = StatusLog(done, config.execution.run_id)
    assert write_failures(config, plan_of(scan, bundle), digest, status, 'stopped') == 0
    assert read_brainage(table_path(done, scan))[0]['status'] == 'ok'


def test_reason_of_a_foreign_error_and_of_none(config, scan):
    assert crash_reason(config, scan) == ''
    write_crash(config, scan, 'ValueError: first', 'MemoryError: no room')
    assert crash_reason(config, scan) == 'MemoryError: no room'
    other = replace(scan, relative=RELATIVE.replace('_T1w', '_run-2_T1w'), run='2',
                    path=scan.path.with_name('sub-01_ses-1_run-2_T1w.nii.gz'),
                    entities={'sub': '01', 'ses': '1', 'run': '2'})  # fmt: skip
    assert crash_reason(config, other) == ''


def test_side_file_is_json(done, scan):
    assert json.loads(table_path(done, scan).with_suffix('.json').read_text())['Models']


def test_failed_scan_is_drawn_with_the_mask_of_its_work_folder(config, scan, tmp_path):
    images = save_head(tmp_path / 'head')
    picture = config.execution.output_dir / 'sub-01/figures/sub-01_ses-1_desc-mask_T1w.svg'
    draw_failed(config, scan)  # not an image: nothing to draw, and no error
    assert not picture.exists()
    image = scan.path.with_name('sub-01_ses-1_T1w.nii.gz')
    image.write_bytes(images['t1w'].read_bytes())
    draw_failed(config, scan)
    assert 'without brain mask' in picture.read_text('utf-8')
    name = f'bids_brainage_0_wf/{scan_workflow_name(scan)}/anat_wf/extract_brain/mask.nii.gz'
    mask = config.execution.work_dir / name
    mask.parent.mkdir(parents=True)
    mask.write_bytes(images['mask'].read_bytes())
    draw_failed(config, scan)
    assert 'Edge of the mask' in picture.read_text('utf-8')
