"""Rows and lines of the status table for what failed."""

from dataclasses import replace

import pytest
from report_tree import save_head
from run_tree import leave_results

from bids_brainage.bundles.bundle import resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.names import log_dir
from bids_brainage.outputs import StatusLog, read_brainage
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import Plan
from bids_brainage.runs.settle import crash_reason, draw_failed, settle
from bids_brainage.tsv import read_tsv
from bids_brainage.workflows.images import table_path
from bids_brainage.workflows.naming import scan_workflow_name

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
def scan(config):
    path = config.execution.bids_dir / RELATIVE
    path.parent.mkdir(parents=True)
    path.write_bytes(b'an image')
    entities = {'sub': '01', 'ses': '1'}
    return Scan(path, RELATIVE, '01', '1', None, entities, 'T1w', 'anat', Age(70.0))


def plan_of(scan, bundle, unreadable=(), images=frozenset()):
    return Plan((scan,), (bundle,), ((scan, (bundle,)),), tuple(unreadable), images=images)


def status_of(config):
    return StatusLog(config.execution.output_dir, config.execution.run_id)


def write_crash(config, scan, *lines):
    folder = config.execution.output_dir / log_dir(config.execution.run_id, '01', '1')
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n'.join([f'Node: wf.{scan_workflow_name(scan)}.anat_wf.check', *lines])
    (folder / 'crash-check.txt').write_text(text)


def test_failures_get_rows_and_reasons(config, scan, bundle):
    write_crash(
        config, scan,
        'ValueError: deep inside',
        f'bids_brainage.errors.UnusableImageError: /data/{RELATIVE}: the field of view is 30 mm',
        'nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised',
    )  # fmt: skip
    other = replace(scan, relative='sub-02/anat/sub-02_T1w.nii.gz', subject='02', session=None,
                    entities={'sub': '02'})  # fmt: skip
    plan = plan_of(scan, bundle, [(other, 'is empty (0 bytes)')])
    assert settle(plan, Ledger(config), status_of(config)) == (2, 0)
    for one, age in ((scan, 70.0), (other, 70.0)):
        (row,) = read_brainage(table_path(config.execution.output_dir, one))
        assert (row['status'], row['predicted_age'], row['age']) == ('failed', None, age)
        assert row['model'] == bundle.name
    table = next(config.execution.output_dir.rglob('status.tsv'))
    messages = {row['source']: row['message'] for row in read_tsv(table)}
    assert messages[scan.uri] == f'/data/{RELATIVE}: the field of view is 30 mm'
    assert messages[other.uri] == 'is empty (0 bytes)'


def test_current_products_are_no_failures(config, scan, bundle):
    leave_results(config, scan, bundle, Ledger(config))
    plan = plan_of(scan, bundle, images={scan.uri})
    assert settle(plan, Ledger(config), status_of(config), 'stopped') == (0, 0)
    out = config.execution.output_dir
    assert read_brainage(table_path(out, scan))[0]['status'] == 'ok'


def test_images_that_did_not_come_back_are_told_and_the_age_stays(config, scan, bundle):
    leave_results(config, scan, bundle, Ledger(config))
    Ledger(config).images(scan).paths[0].unlink()
    plan = plan_of(scan, bundle, images={scan.uri})
    assert settle(plan, Ledger(config), status_of(config), 'the disk broke') == (0, 1)
    out = config.execution.output_dir
    (line,) = read_tsv(next(out.rglob('status.tsv')))
    assert (line['step'], line['status'], line['message']) == (
        'images', 'failed', 'the disk broke',
    )  # fmt: skip
    assert read_brainage(table_path(out, scan))[0]['status'] == 'ok'


def test_reason_of_a_foreign_error_and_of_none(config, scan):
    assert crash_reason(config, scan) == ''
    write_crash(config, scan, 'ValueError: first', 'MemoryError: no room')
    assert crash_reason(config, scan) == f'{RELATIVE}: MemoryError: no room'
    other = replace(scan, relative=RELATIVE.replace('_T1w', '_run-2_T1w'), run='2',
                    path=scan.path.with_name('sub-01_ses-1_run-2_T1w.nii.gz'),
                    entities={'sub': '01', 'ses': '1', 'run': '2'})  # fmt: skip
    assert crash_reason(config, other) == ''


@pytest.mark.parametrize(
    ('kind', 'message', 'told'),
    [
        ('ProcessingError', 'no affine registration to the template succeeded',
         f'{RELATIVE}: no affine registration to the template succeeded'),
        ('UnusableImageError', '{work}/bids_brainage_0_wf/anat/t1w_n4.nii is cut short: end.',
         f'{RELATIVE} is cut short: end.'),
        ('FileNotFoundError', "No such file or no access: '{work}/wf/mask.nii.gz'",
         f"FileNotFoundError: No such file or no access: '{RELATIVE}'"),
    ],
)  # fmt: skip
def test_every_reason_names_the_image_and_no_file_of_the_work_folder(
    config, scan, kind, message, told
):
    write_crash(config, scan, f'{kind}: {message.format(work=config.execution.work_dir)}')
    assert crash_reason(config, scan) == told


def test_failed_scan_is_drawn_with_the_mask_of_its_work_folder(config, scan, tmp_path):
    images = save_head(tmp_path / 'head')
    picture = config.execution.output_dir / 'sub-01/figures/sub-01_ses-1_desc-mask_T1w.svg'
    draw_failed(config, scan)  # not an image: nothing to draw, and no error
    assert not picture.exists()
    scan.path.write_bytes(images['t1w'].read_bytes())
    draw_failed(config, scan)
    assert 'without brain mask' in picture.read_text('utf-8')
    name = f'bids_brainage_0_wf/{scan_workflow_name(scan)}/anat_wf/extract_brain/mask.nii.gz'
    mask = config.execution.work_dir / name
    mask.parent.mkdir(parents=True)
    mask.write_bytes(images['mask'].read_bytes())
    draw_failed(config, scan)
    assert 'Edge of the mask' in picture.read_text('utf-8')
