"""The atlas, and the features made from structure volumes."""

import numpy as np
import pytest

from bids_brainage.errors import ProcessingError
from bids_brainage.inputs.volumes import log_ratios, shown_on, title_of, totals
from bids_brainage.preprocessing.atlas import load_atlas, load_structures, structure_titles

VOLUMES = {
    'csf': 300.0,
    'lateral_ventricle': 30.0,
    'cortex': 500.0,
    'cerebral_white_matter': 470.0,
}


def test_totals_separate_brain_and_fluid():
    known = totals(VOLUMES)
    assert known['brain'] == 1000
    assert known['intracranial'] == 1300
    assert {k: known[k] for k in VOLUMES} == VOLUMES


def test_features_are_logarithms_of_ratios():
    found = log_ratios(
        VOLUMES, ['lateral_ventricle/brain', 'cortex+cerebral_white_matter/brain',
                  'brain/intracranial']
    )  # fmt: skip
    np.testing.assert_allclose(found, np.log([0.03, 0.97, 1000 / 1300]))
    larger = {name: 1.3 * v for name, v in VOLUMES.items()}
    np.testing.assert_allclose(log_ratios(larger, ['cortex/brain']), np.log([0.5]))


def test_missing_and_empty_structures_are_told():
    with pytest.raises(ProcessingError, match=r'lack amygdala.*found brain, .*csf'):
        log_ratios(VOLUMES, ['amygdala/brain'])
    with pytest.raises(ProcessingError, match=r'cortex/brain is 0 ml over 500 ml.*brain mask'):
        log_ratios(VOLUMES | {'cortex': 0.0}, ['cortex/brain'])


def test_every_feature_of_the_packaged_model_has_a_name_and_a_place():
    from bids_brainage.bundles.bundle import resolve_bundle
    from bids_brainage.bundles.places import model_dirs

    features = resolve_bundle('volumes.lifespan', model_dirs(None)[-1:]).input['features']
    names = {s.name for s in load_structures()}
    titles = [title_of(feature) for feature in features]
    assert len(set(titles)) == len(features)
    assert not any('_' in title for title in titles)
    places = [shown_on(feature) for feature in features]
    assert {p for place in places for p in place} <= names
    assert shown_on('brain/intracranial') == ('csf',)
    assert shown_on('caudate+putamen/brain') == ('caudate', 'putamen')


def test_atlas_covers_the_template_brain(fixed):
    atlas = load_atlas()
    assert atlas.priors.shape[0] == len(atlas.structures) == 15
    assert [s.index for s in atlas.structures] == list(range(1, 16))
    assert {s.tissue for s in atlas.structures} == {'CSF', 'GM', 'WM'}
    assert set(structure_titles()) == {s.name for s in atlas.structures}
    assert atlas.priors.min() >= 0
    assert atlas.priors.sum(axis=0).max() < 1.01
    from bids_brainage.preprocessing.transforms import voxel_points

    inside = atlas.sample(voxel_points(fixed.mask, fixed.affine)).sum(axis=0)
    assert (inside > 0.5).mean() > 0.97


def test_atlas_is_symmetric_and_in_place():
    """Structures lie where anatomy has them, in RAS+ millimetres."""
    atlas = load_atlas()
    centre = {}
    for structure, prior in zip(atlas.structures, atlas.priors, strict=True):
        index = np.argwhere(prior > 0.5)
        centre[structure.name] = (index @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]).mean(0)
    for name, point in centre.items():
        assert abs(point[0]) < 2, name  # both sides in one structure
    assert centre['cerebellum_cortex'][1] < -40 < centre['brainstem'][1] < 0
    assert centre['cerebellum_cortex'][2] < centre['hippocampus'][2] < centre['thalamus'][2]
    assert centre['thalamus'][1] < centre['caudate'][1]
