"""When a product of a run counts as up to date."""

import os
from dataclasses import replace

import pytest
from run_tree import leave_former_results, leave_results

from bids_brainage.bundles.bundle import Bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Age, Scan
from bids_brainage.dataset.series import Series
from bids_brainage.names import memo_path, side_file
from bids_brainage.outputs import brainage_row, provenance, write_brainage, write_json
from bids_brainage.outputs.provenance import remembered_sha256, sha256_file
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.rows import rows_of
from bids_brainage.runs.series import series_paths
from bids_brainage.workflows import made_from
from bids_brainage.workflows.images import image_path, table_path, volumes_path
from bids_brainage.workflows.settings import Stored

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


def at_level(config, level):
    return replace(config, execution=replace(config.execution, level=level))


def test_without_images_the_table_of_volumes_says_what_is_done(done, config, scan, bundle):
    minimal = at_level(config, 'minimal')
    table = volumes_path(done, scan)
    ledger = Ledger(config)
    images = [*ledger.images(scan).paths, *ledger.prediction(scan, bundle).paths]
    for path in images:
        path.unlink(missing_ok=True)
    assert state(minimal, scan, bundle) == (False, True)  # nothing says what was measured
    facts = {**made_from.of_images(config), 'InputSHA256': sha256_file(scan.path)}
    write_json(side_file(table), {'MadeFrom': facts})
    table.write_text('region\n')
    assert state(minimal, scan, bundle) == (True, True)
    assert Ledger(minimal).stored(scan) == Stored()  # no model can start from it
    assert Ledger(minimal).made_again(scan)
    assert state(config, scan, bundle) == (False, False)  # all of it is asked for now
    scan.path.write_bytes(b'another image')
    assert state(minimal, scan, bundle) == (False, False)
    assert not Ledger(minimal).made_again(scan)  # it would be made anew anyway


def test_standard_does_without_what_only_models_need(done, config, scan, bundle):
    standard = at_level(config, 'standard')
    kept = {path.name for path in Ledger(standard).images(scan).paths}
    for path in Ledger(config).images(scan).paths:
        if path.name not in kept:
            path.unlink()
    assert state(standard, scan, bundle) == (True, True)
    assert state(config, scan, bundle) == (False, True)
    assert Ledger(standard).stored(scan).images is None
    image_path(done, scan, 'mask').unlink()
    assert state(standard, scan, bundle) == (False, True)


@pytest.mark.parametrize(('level', 'current'), [('minimal', True), ('full', False)])
def test_images_of_a_functional_run_count_where_they_are_kept(config, scan, level, current):
    bold = replace(scan, suffix='bold', datatype='func', entities={'sub': '01', 'task': 'rest'})
    series = Series(bold, scan, None, scan.path, scan.uri)
    chosen = at_level(config, level)
    for path in series_paths(chosen, series):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [path.name for path in series_paths(config, series) if not path.exists()]
    assert (names == []) is not current
    assert all(name.endswith(('_bold.nii.gz', '_mask.nii.gz')) for name in names)
