"""Regions of the segmentation network, and ages from their volumes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from html_page import read
from region_model import AGES, FEATURES, INTERCEPT, MIDDLE, NAME, USUAL, WIDTH, make_region_bundle

from bids_brainage.bundles.check import check_bundle
from bids_brainage.errors import BundleError
from bids_brainage.inference.__main__ import main
from bids_brainage.inference.predict import predict
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.inputs.volumes import log_ratios, shown_on, title_of
from bids_brainage.interfaces.prediction import PredictAge, SavePrediction
from bids_brainage.interfaces.regions import MeasureRegions
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import card, segmentation_facts

SUM_TOLERANCE = 1e-9
SCAN = {
    'participant_id': 'sub-01', 'session_id': None, 'run': None, 'modality': 'T1w',
    'source': 'bids:raw:sub-01/anat/sub-01_T1w.nii.gz', 'age': 70.0,
    'age_source': 'participants.tsv', 'age_censored': False, 'sex': 'F',
}  # fmt: skip


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return make_region_bundle(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return make_region_bundle(tmp_path_factory.mktemp('plain'), curves=False)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A table of an ordinary brain, and a label image with every region in a slab of its own."""
    folder = tmp_path_factory.mktemp('regions')
    volumes = {region.name: 20.0 for region in load_regions()} | {'csf': 120.0}
    table = {'VolumesML': volumes, 'Segmentation': segmentation_facts(), 'SkullStripped': False}
    (folder / 'volumes.json').write_text(json.dumps(table))
    labels = np.zeros((44, 20, 20), np.uint8)
    labels[2:41, 4:16, 4:16] = np.arange(1, 40)[:, None, None]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(labels, affine), folder / 'regions.nii.gz')
    return {'region_volumes': folder / 'volumes.json', 'regions': folder / 'regions.nii.gz'}


def with_features(folder, values):
    """Write a table whose five features have the given values (log ratios)."""
    wanted = dict(zip(FEATURES, values, strict=True))
    brain = 1100.0
    volumes = {region.name: 0.0 for region in load_regions()}
    for feature, value in wanted.items():
        names = feature.split('/')[0].split('+')
        if names != ['brain']:
            volumes |= dict.fromkeys(names, brain * np.exp(value) / len(names))
    volumes['brainstem'] = brain - sum(volumes.values())
    volumes['csf'] = brain / np.exp(wanted['brain/intracranial']) - brain
    table = {'VolumesML': volumes, 'Segmentation': segmentation_facts(), 'SkullStripped': False}
    path = folder / 'table.json'
    path.write_text(json.dumps(table))
    return {'region_volumes': path}


def test_node_labels_the_brain_of_a_scan(derivatives, tmp_path):
    node = MeasureRegions(
        t1w=str(derivatives['t1w_uncorrected']), mask=str(derivatives['mask_native']),
        facts=str(derivatives['facts']), weights_sha256=card()['weights_sha256'],
    )  # fmt: skip
    outputs = node.run(cwd=str(tmp_path)).outputs
    image = nib.load(outputs.regions)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.header.get_zooms(), 2)
    labels = np.asarray(image.dataobj)
    assert labels.max() <= len(load_regions())
    facts = json.loads(Path(outputs.region_volumes).read_text())
    assert facts == outputs.region_facts
    assert set(facts['VolumesML']) == {region.name for region in load_regions()}
    assert facts['LabelMap']['1'] == 'csf'
    assert facts['Segmentation'] == segmentation_facts()
    assert facts['Segmentation']['WeightsSHA256'] == card()['weights_sha256']


def test_other_weights_are_another_result(derivatives):
    node = MeasureRegions(
        t1w=str(derivatives['t1w_uncorrected']), mask=str(derivatives['mask_native']),
        facts=str(derivatives['facts']), weights_sha256='a', threads=1,
    )  # fmt: skip
    _, before = node.inputs.get_hashval()
    node.inputs.threads = 2
    assert node.inputs.get_hashval()[1] == before
    node.inputs.weights_sha256 = 'b'
    assert node.inputs.get_hashval()[1] != before
    with pytest.raises(ValueError, match='weights_sha256'):
        MeasureRegions(t1w=node.inputs.t1w, mask=node.inputs.mask, facts=node.inputs.facts).run()


def test_features_come_from_the_table_or_the_side_file(bundle, files, tmp_path):
    table = json.loads(files['region_volumes'].read_text())
    found = prepare_input(bundle.input, files).arrays[0]
    np.testing.assert_allclose(found, log_ratios(table['VolumesML'], FEATURES))
    side = tmp_path / 'side.json'
    side.write_text(json.dumps({**table, 'Sources': ['x'], 'Resolution': '2 x 2 x 2 mm'}))
    again = prepare_input(bundle.input, {'region_volumes': side}).arrays[0]
    np.testing.assert_array_equal(again, found)


def test_volumes_of_another_segmentation_are_refused(bundle, files, tmp_path):
    table = json.loads(files['region_volumes'].read_text())
    table['Segmentation']['WeightsSHA256'] = 'f' * 64
    other = tmp_path / 'other.json'
    other.write_text(json.dumps(table))
    digest = card()['weights_sha256'][:12]
    with pytest.raises(BundleError, match=rf'other\.json: found .* ffffffffffff, .*{digest}.*run'):
        predict(bundle, {'region_volumes': other})


def test_bundle_of_another_segmentation_is_refused_before_anything_runs(tmp_path, monkeypatch):
    from bids_brainage.cli.request import parse
    from bids_brainage.errors import MissingInputError
    from bids_brainage.runs.plan import resolve_models

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bids').mkdir()
    call = ['bids', 'out', 'participant', '--models', NAME, '--model-dir', 'models']
    make_region_bundle(tmp_path / 'models')
    assert [b.name for b in resolve_models(parse(call, {}))] == [NAME]
    other = {'name': 'other', 'weights_sha256': 'e' * 64}
    make_region_bundle(tmp_path / 'models', segmentation=other)
    with pytest.raises(MissingInputError, match=rf'{NAME}: found .*expected .*eeeeeeeeeeee'):
        resolve_models(parse(call, {}))


def test_bundle_passes_the_conformance_suite_and_must_name_its_segmentation(bundle, tmp_path):
    report = check_bundle(bundle.path)
    assert report.passed, str(report)
    with pytest.raises(BundleError, match=r'`input\.segmentation` must hold'):
        make_region_bundle(tmp_path, segmentation=None)


@pytest.mark.parametrize(
    ('curves', 'message'),
    [
        ({'age': [1.0, 2.0]}, '`age` and `contributions`'),
        ({'age': [1.0, 2.0], 'contributions': [[0.0], [0.0, 0.0]]}, 'a list of numbers'),
        ({'age': [2.0, 1.0], 'contributions': USUAL[:, :2].tolist()}, 'ascending ages'),
        ({'age': [1.0, 2.0], 'contributions': [[0.0, 0.0]]}, r'5 x 2 contributions, found \(1, 2'),
    ],
)
def test_wrong_reference_curves_are_told(bundle, curves, message):
    from bids_brainage.bundles.contract import metadata_problems

    training = bundle.metadata['training'] | {'reference_curves': curves}
    (problem,) = metadata_problems(bundle.metadata | {'training': training})
    assert 'training.reference_curves' in problem
    assert re.search(message, problem)


@pytest.mark.parametrize('age', [None, 20.0, 33.3, 70.0, 99.0])
def test_base_age_and_contributions_add_up_to_the_age(bundle, files, age):
    found = predict(bundle, files, reference_age=age)
    total = found.base_age + sum(found.contributions.values())
    assert total == pytest.approx(found.age, abs=SUM_TOLERANCE)
    assert list(found.contributions) == list(FEATURES)


def test_age_of_the_explanation_does_not_change_the_predicted_age(bundle, plain, files):
    ages = [predict(bundle, files, reference_age=age).age for age in (None, 20.0, 70.0, 5.0)]
    assert len(set(ages)) == 1
    assert predict(plain, files).age == ages[0]


def test_contributions_compare_with_people_of_the_reference_age(bundle, plain, files):
    absolute = np.array(list(predict(plain, files).contributions.values()))
    for age, usual in ((40.0, USUAL[:, 1]), (50.0, USUAL[:, 1:3].mean(axis=1))):
        found = predict(bundle, files, reference_age=age)
        np.testing.assert_allclose(list(found.contributions.values()), absolute - usual)
        np.testing.assert_allclose(list(found.from_mean.values()), absolute)
        assert found.base_age == pytest.approx(INTERCEPT + usual.sum())
        assert found.reference_age == age
    assert predict(bundle, files, reference_age=99.0).reference_age == AGES[-1]
    unknown = predict(bundle, files)
    assert unknown.reference_age == pytest.approx(np.clip(unknown.age, AGES[0], AGES[-1]))
    without = predict(plain, files, reference_age=40.0)
    assert (without.base_age, without.reference_age, without.from_mean) == (None, None, {})


def test_usual_person_of_an_age_has_no_contributions(bundle, tmp_path):
    usual = MIDDLE + USUAL[:, 2] / np.array([9.0, -80.0, -15.0, -12.0, -20.0])
    found = predict(bundle, with_features(tmp_path, usual), reference_age=60.0)
    np.testing.assert_allclose(list(found.contributions.values()), 0, atol=SUM_TOLERANCE)
    assert found.age == pytest.approx(found.base_age)


def test_measure_beyond_the_curves_is_named(bundle, tmp_path):
    assert predict(bundle, with_features(tmp_path, MIDDLE)).beyond == ()
    values = MIDDLE.copy()
    values[2] -= 1.01 * WIDTH[2]
    found = predict(bundle, with_features(tmp_path, values))
    assert found.beyond == ('thalamus/brain',)
    values[2] -= 0.1  # the age stays that of the end of the curve
    further = predict(bundle, with_features(tmp_path, values))
    assert further.age == pytest.approx(found.age, abs=SUM_TOLERANCE)
    assert further.typicality > found.typicality


def test_titles_and_places_are_those_of_the_segmentation():
    regions = {region.name for region in load_regions()}
    for region in load_regions():
        assert title_of(f'{region.name}/brain', 'region_volumes') == region.title
    for feature in FEATURES:
        assert set(shown_on(feature)) <= regions
    assert title_of('caudate/brain') != title_of('caudate/brain', 'region_volumes')


def test_map_paints_the_years_of_a_feature_on_its_regions(bundle, files):
    found = predict(bundle, files, reference_age=50.0)
    (item,) = found.maps
    labels = nib.load(files['regions'])
    assert (item.method, item.space, item.unit) == ('contribution', 'T1w', 'year')
    assert item.regional
    assert item.data.shape == labels.shape
    np.testing.assert_allclose(item.affine, labels.affine)
    index = {region.name: region.index for region in load_regions()}
    place = np.asarray(labels.dataobj)
    shown = set()
    for feature, years in found.contributions.items():
        for name in shown_on(feature):
            np.testing.assert_allclose(item.data[place == index[name]], years, rtol=1e-6)
            shown.add(index[name])
    assert 'csf' in shown_on('brain/intracranial')
    assert (item.data[~np.isin(place, list(shown))] == 0).all()
    assert predict(bundle, {'region_volumes': files['region_volumes']}).maps == ()
    assert predict(bundle, files, saliency=()).maps == ()


def test_command_takes_the_reference_age(bundle, files, tmp_path):
    node = PredictAge(
        bundle=str(bundle.path), weights_sha256='0', reference_age=41.25,
        region_volumes=str(files['region_volumes']), regions=str(files['regions']),
    )  # fmt: skip
    words = node.cmdline.split()
    assert words[words.index('--reference-age') + 1] == '41.25'
    arguments = [str(bundle.path), str(tmp_path), '--reference-age', '41.25']
    arguments += ['--region-volumes', str(files['region_volumes'])]
    assert main([*arguments, '--regions', str(files['regions'])]) == 0
    content = json.loads((tmp_path / 'prediction.json').read_text())
    assert content['reference_age'] == 41.25
    total = content['base_age'] + sum(content['contributions'].values())
    assert total == pytest.approx(content['predicted_age'], abs=SUM_TOLERANCE)
    assert content['maps'][0]['regional'] is True


@pytest.fixture(scope='module')
def saved(bundle, files, derivatives, tmp_path_factory):
    """Predict a brain with one strange measure and save it as the workflow does."""
    from bids_brainage.inference.result import save_prediction

    folder = tmp_path_factory.mktemp('save')
    values = MIDDLE.copy()
    values[0] += 1.2 * WIDTH[0]
    tables = with_features(folder, values)
    found = predict(bundle, files | tables, reference_age=70.0)
    # regions on the grid of the scan: two halves
    native = nib.load(derivatives['mask_native'])
    data = np.where(np.arange(native.shape[0])[:, None, None] < native.shape[0] // 2, 2.0, -1.0)
    data = np.broadcast_to(data, native.shape).astype(np.float32)
    halves = replace(found.maps[0], data=data, affine=native.affine)
    path = save_prediction(replace(found, maps=(halves,)), folder / 'node', {})
    root = tmp_path_factory.mktemp('out')
    node = SavePrediction(
        prediction=str(path), bundle=str(bundle.path), quality=str(derivatives['quality']),
        facts=str(derivatives['facts']), scan=SCAN, source_file='/data/sub-01/anat/sub-01_T1w.nii',
        provenance={}, made_from={'RandomSeed': 0}, base_directory=str(root),
        transform=str(derivatives['transform']),
        mask_native=str(derivatives['mask_native']), template=str(derivatives['t1w']),
    )  # fmt: skip
    return root, node.run(cwd=str(folder)).outputs, found


def test_side_file_says_with_whom_it_compares_and_what_lies_beyond(saved):
    root, _, found = saved
    side = json.loads((root / 'sub-01/anat/sub-01_brainage.json').read_text())
    facts = side['Models'][NAME]
    assert facts['ReferenceAge'] == 70.0
    total = facts['BaseAge'] + sum(facts['Contributions'].values())
    assert total == pytest.approx(found.age, abs=SUM_TOLERANCE)
    assert 'Thalamus' in facts['Contributions']
    assert facts['Beyond'] == ['Lateral ventricles, temporal horns of the ventricles']


def test_strange_measure_raises_its_flag(saved):
    from bids_brainage.outputs.tables import read_brainage
    from bids_brainage.reports.wording import describe_flag

    (row,) = read_brainage(saved[1].table)
    assert 'measure_outside_training' in row['qc_flag'].split(';')
    flag = describe_flag('measure_outside_training')
    assert flag.severity == 'caution'
    assert flag.advice


def test_borders_of_regions_are_not_blurred(saved):
    root, outputs, _ = saved
    (native,) = outputs.native_maps
    normal = next(root.rglob('*space-MNI*_saliency.nii.gz'))
    for path in (native, normal):
        values = np.asarray(nib.load(path).dataobj)
        assert set(np.unique(values)) <= {-1.0, 0.0, 2.0}
        assert (values > 0).any() and (values < 0).any()


def test_report_says_how_the_age_adds_up(saved):
    from bids_brainage.reports.participant import build_participant_report

    root, _, found = saved
    (path,) = build_participant_report(root, '01')
    text = read(path).text
    assert 'people of the same age (70.0 years)' in text
    assert f'For such people the model says {found.base_age:.1f} years on average' in text
    assert f'which gives the predicted age of {found.age:.1f} years' in text
    assert 'so that it counted the end of the range: Lateral ventricles, temporal horns' in text
    assert text.index('Measure outside') < text.index('Which regions moved')
