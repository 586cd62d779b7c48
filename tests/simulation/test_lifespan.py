"""People of all ages: volumes as drawn, smooth invertible warps, truth, repeatability."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from bids_brainage.errors import MissingInputError, OptionError  # noqa: E402
from bids_brainage.simulation.lifespan import field  # noqa: E402
from bids_brainage.simulation.lifespan.anatomy import (  # noqa: E402
    BRAIN,
    STRUCTURES,
    atlas_anatomy,
    load_anatomies,
)
from bids_brainage.simulation.lifespan.cohort import draw_age, draw_traits, individual_at  # noqa: E402
from bids_brainage.simulation.lifespan.imperfection import Imperfection  # noqa: E402
from bids_brainage.simulation.lifespan.inputs import (  # noqa: E402
    ageing_map,
    modulated_gm,
    painted,
    t1w_brain,
    t1w_clinical,
    t1w_structural,
)
from bids_brainage.simulation.lifespan.person import FLOW, prepare_carver  # noqa: E402
from bids_brainage.simulation.lifespan.population import load_population  # noqa: E402
from bids_brainage.simulation.lifespan.registration import GREY, align, normalise, template_anatomy  # noqa: E402
from bids_brainage.simulation.lifespan.render import draw_acquisition, take_scan  # noqa: E402
from bids_brainage.training.prepare import input_block  # noqa: E402
from bids_brainage.training.recipe_check import make_recipe  # noqa: E402

COARSE = {'data': {'coarsen': 2}}
VOLUME_TOLERANCE = 0.02
SCAN_VOLUME_TOLERANCE = 0.05
"""Of structures above 5 ml on the scan's own grid, where the head is turned and resampled."""
ROUND_TRIP_MM = 1.0
"""For 99 % of the brain; a voxel of the flow's grid (4 mm) everywhere."""
VENTRICLE = STRUCTURES.index('lateral_ventricle')
GM_GRID = (
    (42, 51, 42),
    np.array([[4.0, 0, 0, -82.5], [0, 4.0, 0, -118.5], [0, 0, 4.0, -70.5], [0, 0, 0, 1.0]]),
)


@pytest.fixture(scope='module')
def carver():
    torch.set_num_threads(1)
    return prepare_carver(atlas_anatomy())


@pytest.fixture(scope='module')
def template(carver):
    return template_anatomy(carver.anatomy)


@pytest.fixture(scope='module')
def lives(carver):
    """One person at 30, 50 and 75 years."""
    population = load_population()
    traits = draw_traits(population, 3, 0)
    return [individual_at(traits, age, population, [carver]) for age in (30.0, 50.0, 75.0)]


def test_population_follows_known_changes():
    population = load_population()
    young, middle, old = (np.exp(population.typical(age)) for age in (20.0, 50.0, 85.0))
    at = {name: k for k, name in enumerate(population.structures)}
    assert old[at['lateral_ventricle']] > 3 * young[at['lateral_ventricle']]
    assert young[at['cortex']] > middle[at['cortex']] > old[at['cortex']]
    assert old[at['hippocampus']] < 0.95 * middle[at['hippocampus']]
    assert 0.7 < young.sum() < 0.85


def test_population_is_refused_outside_its_ages():
    with pytest.raises(OptionError, match='cover 5 to 95 years'):
        load_population().typical(101.0)


def test_nobody_can_know_the_age_from_volumes_better_than_some_years():
    population = load_population()
    rng = np.random.default_rng(0)
    age = rng.uniform(18, 95, 600)
    share = population.typical(age) + np.stack([population.draw_deviation(rng) for _ in age])
    error = np.abs(population.expected_age(share, 18, 95) - age)
    assert 4.5 < error.mean() < 7.0
    grey = np.abs(population.expected_age(share, 18, 95, GREY) - age)
    assert grey.mean() > 1.3 * error.mean()


def test_structures_get_their_volumes(lives):
    population = load_population()
    for person in lives:
        wanted = population.volumes(
            person.age, person.traits.deviation, person.traits.intracranial_ml
        )
        assert np.abs(np.log(person.volumes_ml / wanted)).max() < 1.5 * VOLUME_TOLERANCE
        assert np.abs(np.log(person.volumes_ml[4:6] / wanted[4:6])).max() < VOLUME_TOLERANCE


def test_warps_do_not_fold_and_can_be_inverted(lives):
    for person in lives:
        assert float(person.warp.growth.min()) > 0
        points = person.carver.points
        forward = field.exponentiate(person.warp.velocity, FLOW, points)
        there = points + forward
        back = there + field.sample(person.warp.inverse(points), FLOW, there, border=True)
        error = (back - points).norm(dim=0)[person.carver.blocks.sum(0) > 0.5]
        assert float(error.quantile(0.99)) < ROUND_TRIP_MM
        assert float(error.max()) < FLOW.spacing


def test_the_same_number_is_the_same_person(carver):
    population = load_population()
    pair = [
        individual_at(draw_traits(population, 3, 7), 40.0, population, [carver], exact=False)
        for _ in range(2)
    ]
    other = draw_traits(population, 3, 8)
    assert torch.equal(pair[0].warp.velocity, pair[1].warp.velocity)
    assert not np.allclose(pair[0].traits.deviation, other.deviation)
    assert draw_age(3, 7, (18, 95)) == draw_age(3, 7, (18, 95)) != draw_age(3, 8, (18, 95))


def test_ageing_makes_room_for_fluid_and_says_where(lives, template):
    young, _, old = lives
    assert old.volumes_ml[VENTRICLE] > 1.5 * young.volumes_ml[VENTRICLE]
    truth = ageing_map(young, old, normalise(old, template))
    structure = template.classes.new_tensor(young.carver.anatomy.fractions()).numpy()
    ventricle, cortex = structure[VENTRICLE] > 0.9, structure[STRUCTURES.index('cortex')] > 0.7
    assert truth.shape == BRAIN.shape
    assert truth[ventricle].mean() > 0.2 > 0 > truth[cortex].mean()


def test_a_scan_shows_the_volumes(lives):
    person = lives[1]
    acquisition = draw_acquisition(np.random.default_rng(0), skull_strip=True)
    scan = take_scan(person, acquisition, 0, truth=True)
    ml = scan.structures.sum((1, 2, 3)) * 8 / 1000
    large = person.volumes_ml > 5
    assert np.abs(np.log(ml / person.volumes_ml))[large].max() < SCAN_VOLUME_TOLERANCE
    again = take_scan(person, acquisition, 0)
    assert np.array_equal(np.asarray(scan.image.dataobj), np.asarray(again.image.dataobj))
    other = np.asarray(take_scan(person, acquisition, 1).image.dataobj)
    assert not np.array_equal(np.asarray(scan.image.dataobj), other)


def test_thick_slices_have_the_asked_voxels(lives):
    acquisition = draw_acquisition(np.random.default_rng(1), (1.0, 1.0, 5.0), skull_strip=True)
    image = take_scan(lives[0], acquisition, 0).image
    assert np.allclose(image.header.get_zooms(), (1, 1, 5))
    assert np.asarray(image.dataobj).max() > 500


def test_grey_matter_maps_keep_the_volume(lives, template):
    kept = [STRUCTURES.index(name) for name in GREY]
    for person in lives:
        values = modulated_gm(normalise(person, template), *GM_GRID)
        assert values.sum() * 0.064 == pytest.approx(person.volumes_ml[kept].sum(), rel=0.03)


def test_an_affine_keeps_the_ageing_that_a_deformation_hides(lives, template, carver):
    young, _, old = lives
    ventricle = carver.fractions[VENTRICLE : VENTRICLE + 1]

    def growth(register):
        size = [
            float(field.sample(ventricle, BRAIN, register(person, template).source).sum())
            for person in (young, old)
        ]
        return np.log(size[1] / size[0])

    brain = [1 - person.volumes_ml[0] / person.volumes_ml.sum() for person in (young, old)]
    true = old.log_share[VENTRICLE - 1] - young.log_share[VENTRICLE - 1]
    true -= np.log(brain[1] / brain[0])
    assert growth(align) == pytest.approx(true, abs=0.1)
    assert growth(normalise) < 0.6 * true


def test_a_second_scan_of_a_person_differs_less_than_another_person(carver, template):
    population, error = load_population(), Imperfection()
    maps = []
    for number, scan in ((0, 1), (0, 2), (1, 1)):
        traits = draw_traits(population, 4, number)
        person = individual_at(traits, 40.0, population, [carver], exact=False)
        maps.append(modulated_gm(normalise(person, template, scan, error), *GM_GRID, error))
    again, other = (np.abs(maps[0] - m).mean() for m in maps[1:])
    assert 0 < again < 0.7 * other


def test_a_deformation_hides_what_it_finds_of_a_warp(lives, template, carver):
    ventricle = carver.fractions[VENTRICLE : VENTRICLE + 1]

    def growth(share):
        still = Imperfection(shift_mm=0.0, registered=(share, share))
        young, old = (
            float(field.sample(ventricle, BRAIN, normalise(p, template, 1, still).source).sum())
            for p in (lives[0], lives[2])
        )
        return np.log(old / young)

    all_left, half, none_left = (growth(share) for share in (0.0, 0.5, 1.0))
    assert abs(none_left) < 0.01
    assert 0.3 * all_left < half < 0.7 * all_left


def test_the_segmentation_sees_grey_matter_where_white_matter_meets_fluid(lives, template):
    def seen(rim):
        error = Imperfection(gain_sd=0.0, patch_sd=0.0, shift_mm=0.0, rim=(rim, rim))
        return modulated_gm(normalise(lives[2], template, 1, error), *GM_GRID, error)

    none, some, more = (seen(rim) for rim in (0.0, 0.5, 1.0))
    added = some - none
    assert added.min() > -1e-5 and 0.001 < added.sum() / none.sum() < 0.1
    np.testing.assert_allclose(more - none, 2 * added, atol=1e-4)


def test_habits_belong_to_a_person():
    error = Imperfection()
    drawn = np.array([error.draw_habits((1, number, 9)) for number in range(200)])
    assert np.array_equal(drawn[3], error.draw_habits((1, 3, 9)))
    for values, (low, high) in zip(drawn.T, (error.registered, error.rim), strict=True):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high


def test_t1w_inputs_are_brains_in_units_of_their_brightest(lives, template):
    contrast = draw_acquisition(np.random.default_rng(2)).contrast
    values = t1w_brain(align(lives[0], template), painted(template, contrast), *GM_GRID)
    assert values.min() >= 0
    assert 0.9 < np.sort(values.ravel())[-values.size // 100 :].mean() < 1.1


def test_thick_slice_inputs_are_brains_of_one_scale(lives, template):
    block = input_block('densenet169_clinical', make_recipe('densenet169_clinical', COARSE))
    image = painted(template, draw_acquisition(np.random.default_rng(2)).contrast)
    young, _, old = (
        t1w_clinical(person, image, block, np.random.default_rng(3)) for person in lives
    )
    assert young.shape == (40, 60, 20)
    occupied = np.argwhere(young > 0)
    assert np.all(np.ptp(occupied, axis=0) * 4 > (100, 130, 70))
    assert young[young > 0].std() == pytest.approx(1, abs=0.35)
    dark = [float((v[(v > 0)] < 0.3 * np.median(v[v > 0])).mean()) for v in (young, old)]
    assert dark[1] > dark[0]


def test_inputs_of_system_d_are_shares_of_the_brightest(lives, template):
    block = input_block('amagenet', make_recipe('amagenet', {'data': {'coarsen': 4}}))
    image = painted(template, draw_acquisition(np.random.default_rng(2)).contrast)
    shape, affine = tuple(block['shape']), np.array(block['affine'])
    values = t1w_structural(align(lives[0], template), image, shape, affine)
    assert values.shape == (32, 32, 32)
    assert 0.6 < values.max() <= 1.01
    assert values.min() == 0


def test_missing_label_maps_are_named(tmp_path):
    with pytest.raises(MissingInputError, match='training_seg_'):
        load_anatomies(tmp_path, tmp_path / 'cache')
