"""When a product of a run counts as up to date."""

import os
from dataclasses import replace

import pytest
from run_tree import leave_former_results, leave_results

from bids_brainage.bundles.bundle import Bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.names import memo_path
from bids_brainage.outputs import brainage_row, provenance, write_brainage
from bids_brainage.outputs.provenance import remembered_sha256, sha256_file
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.rows import rows_of
from bids_brainage.workflows import made_from
from bids_brainage.workflows.images import table_path

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


@pytest.fixture(params=[leave_results, leave_former_results], ids=['today', 'former version'])
def done(request, config, scan, bundle):
    """Leave behind what a run leaves behind, and return the output dataset."""
    request.param(config, scan, bundle, Ledger(config))
    return config.execution.output_dir


def state(config, scan, bundle):
    ledger = Ledger(config)
    return ledger.images(scan).is_current, ledger.prediction(scan, bundle).is_current


def test_complete_result_is_current(done, config, scan, bundle):
    assert state(config, scan, bundle) == (True, True)
    assert rows_of(done, [scan], [bundle.name])[0]['predicted_age'] == 60
    stored = Ledger(config).stored(scan)
    assert stored.images == stored.mask == {'mask_ml': 1400.0, 'similarity': 0.9}


def test_nothing_is_not_current(config, scan, bundle):
    assert state(config, scan, bundle) == (False, False)
    assert rows_of(config.execution.output_dir, [scan], [bundle.name]) == []


@pytest.mark.parametrize(
    'field', ['weights_sha256', 'config_hash', 'conformal', 'bias_correction']
)
def test_another_bundle_of_the_same_name_predicts_anew(done, config, scan, bundle, field):
    other = Bundle(bundle.path, bundle.metadata | {field: 'another'})
    assert state(config, scan, other) == (True, False)


def test_other_options_make_all_anew_and_another_seed_only_predictions(done, config, scan, bundle):
    sloppy = replace(config, workflow=replace(config.workflow, sloppy=True))
    assert state(sloppy, scan, bundle) == (False, False)
    seeded = replace(config, seeds=replace(config.seeds, random_seed=7))
    assert state(seeded, scan, bundle) == (True, False)


def test_new_segmentation_weights_make_the_images_anew(done, config, scan, bundle, monkeypatch):
    monkeypatch.setattr(made_from, 'card', lambda: {'weights_sha256': 'another'})
    assert state(config, scan, bundle) == (False, True)


def test_changed_image_makes_all_anew(done, config, scan, bundle):
    scan.path.write_bytes(b'another image')
    assert state(config, scan, bundle) == (False, False)


@pytest.mark.parametrize('error', [PermissionError(13, 'denied'), OSError(5, 'input/output')])
def test_image_that_cannot_be_read_stops_no_run(done, config, scan, bundle, monkeypatch, error):
    def refuse(path):
        raise error

    memo = done / memo_path(scan.subject)
    memo.unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, 'sha256_file', refuse)
        assert state(config, scan, bundle) == (False, False)
    assert not memo.exists()  # no hash is remembered for it
    assert state(config, scan, bundle) == (True, True)


def test_missing_file_makes_its_product_anew(done, config, scan, bundle):
    ledger = Ledger(config)
    maps = ledger.prediction(scan, bundle).paths
    assert any('saliency' in path.name for path in maps)
    for path in (*ledger.images(scan).paths, *maps):
        content = path.read_bytes()
        path.unlink()
        assert state(config, scan, bundle) == (path in maps, path not in maps), path.name
        path.write_bytes(content)
    table = table_path(done, scan)
    for path in (table, table.with_suffix('.json')):
        content = path.read_bytes()
        path.unlink()
        assert not ledger.prediction(scan, bundle).is_current
        path.write_bytes(content)
    assert state(config, scan, bundle) == (True, True)


def test_maps_count_only_when_they_were_asked_for(done, config, scan, bundle):
    for path in done.rglob('*saliency*'):
        path.unlink()
    assert state(config, scan, bundle) == (True, False)
    plain = replace(config, workflow=replace(config.workflow, saliency=()))
    assert state(plain, scan, bundle) == (True, True)


def test_failed_row_is_not_current(done, config, scan, bundle):
    row = brainage_row(source=scan.uri, model=bundle.name, status='failed')
    write_brainage(table_path(done, scan), [row])
    assert state(config, scan, bundle) == (True, False)


def test_age_counts_only_for_explanations_that_compare_with_people_of_it(
    done, config, scan, bundle
):
    assert state(config, replace(scan, age=Age(50.0), sex='F'), bundle) == (True, True)


def test_explanation_by_age_is_made_anew_for_another_age(config, scan):
    adults = resolve_bundle('volumes.adults', model_dirs(None)[-1:])
    leave_results(config, scan, adults, Ledger(config))
    assert state(config, scan, adults) == (True, True)
    assert state(config, replace(scan, age=Age(50.0)), adults) == (True, False)


def test_same_size_and_time_are_the_same_file_and_a_copy_is_read_once(tmp_path):
    path, memo = tmp_path / 'image.nii', tmp_path / 'log' / 'inputs.json'
    path.write_bytes(b'an image')
    first = remembered_sha256(path, memo)
    times = path.stat()
    path.write_bytes(b'AN IMAGE')
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert remembered_sha256(path, memo) == first
    os.utime(path, (1, 1))
    assert remembered_sha256(path, memo, remember=False) == sha256_file(path) != first
    assert remembered_sha256(path, memo) == sha256_file(path)
    assert memo.read_text().count('sha256') == 1


def test_ledger_that_must_not_write_remembers_nothing(done, config, scan, bundle):
    assert Ledger(config, remember=False).images(scan).is_current
    assert not (done / memo_path('01')).exists()
    assert Ledger(config).images(scan).is_current
    assert (done / memo_path('01')).exists()
