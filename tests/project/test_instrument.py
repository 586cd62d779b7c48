"""The segmentation as an instrument: the pure parts, on balls and on made-up people."""

import instrument
import numpy as np
import pandas as pd
import pytest

from bids_brainage.segmentation.measure import Regions
from bids_brainage.segmentation.regions import load_regions

SPACING = 2.0
INDEX = {region.name: region.index for region in load_regions()}


def ball(radius, centre=(20, 20, 20), shape=(40, 40, 40)):
    index = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt((index**2).sum(axis=0)) * SPACING < radius


@pytest.fixture(scope='module')
def regions():
    """White matter with a ventricle and a hippocampus in it, fluid around."""
    out = np.zeros((40, 40, 40), np.uint8)
    out[ball(30)] = INDEX['csf']
    out[ball(26)] = INDEX['frontal_white_matter']
    out[ball(10)] = INDEX['lateral_ventricle']
    out[ball(6.5, (20, 20, 29))] = INDEX['hippocampus']
    return out


def volumes_of(regions):
    counts = np.bincount(regions.ravel(), minlength=len(INDEX) + 1) * SPACING**3 / 1000
    return {name: float(counts[i]) for name, i in INDEX.items()}


def test_a_perfect_measure_recovers_a_change_wholly():
    assert instrument.recovery(4, 3, 8, 6) == pytest.approx(1)
    assert instrument.recovery(4, 4, 8, 6) == 0
    assert instrument.recovery(4, 4.4, 8, 6) < 0


@pytest.mark.parametrize(('name', 'factor'), [('lateral_ventricle', 1.3), ('hippocampus', 0.75)])
def test_warp_reaches_its_factor_and_the_neighbours_give_way(regions, name, factor):
    target, inside = regions == INDEX[name], regions > 0
    displacement, reached = instrument.volume_warp([(target, factor)], inside, SPACING)
    assert reached == pytest.approx(factor, rel=instrument.FACTOR_TOLERANCE)
    before, after = volumes_of(regions), instrument.warped_volumes(regions, displacement, SPACING)
    assert after[name] / before[name] == pytest.approx(factor, rel=0.01)
    assert sum(after.values()) == pytest.approx(sum(before.values()), rel=0.003)
    white = 'frontal_white_matter'
    assert (after[white] > before[white]) == (factor < 1)
    assert np.abs(displacement[:, ~ball(34)]).max() < 0.1


def test_parts_change_alike_and_kept_neighbours_stay(regions):
    ventricle, horn = regions == INDEX['lateral_ventricle'], ball(4, (20, 20, 26))
    horn &= ~ventricle
    displacement, _ = instrument.volume_warp([(ventricle, 1.2), (horn, 1.0)], regions > 0, SPACING)
    parts = np.where(ventricle, 1, np.where(horn, 2, 0)).astype(np.uint8)
    after = instrument.warped_volumes(parts, displacement, SPACING)
    before = volumes_of(parts)
    for index, factor in ((1, 1.2), (2, 1.0)):
        name = load_regions()[index - 1].name
        assert after[name] / before[name] == pytest.approx(factor, rel=0.02)


def test_an_impossible_change_is_refused(regions, monkeypatch):
    monkeypatch.setattr(instrument, 'MAX_ROUNDS', 2)
    target = regions == INDEX['lateral_ventricle']
    with pytest.raises(ValueError, match='factor'):
        instrument.volume_warp([(target, 60.0)], regions > 0, SPACING)


def test_image_and_labels_are_warped_alike(regions):
    target = regions == INDEX['lateral_ventricle']
    displacement, _ = instrument.volume_warp([(target, 1.3)], regions > 0, SPACING)
    image = instrument.warped_image(target.astype(np.float32), displacement, SPACING)
    assert image.sum() / target.sum() == pytest.approx(1.3, rel=0.03)
    assert image.min() >= 0
    assert image.max() <= 1


def test_agreement_of_a_measure_that_shrinks_differences():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    found = instrument.agreement(1.5 + 0.5 * truth, truth)
    assert found['n'] == 4
    assert found['r'] == pytest.approx(1)
    assert found['slope'] == pytest.approx(0.5)
    assert found['ratio'] == pytest.approx((2.5 / 2 + 3 / 3) / 2)


def test_agreement_with_a_constant_is_not_told():
    assert np.isnan(instrument.agreement(np.arange(3.0), np.ones(3))['r'])


def test_dice_of_each_label():
    ours, theirs = np.array([0, 1, 1, 2], np.uint8), np.array([1, 1, 1, 0], np.uint8)
    found = instrument.dice(ours, theirs, 4)
    assert found[:2] == pytest.approx([0.8, 0])
    assert np.isnan(found[2])


def test_groups_are_made_of_known_regions_without_doubles():
    for name, parts in instrument.GROUPS.items():
        assert set(parts) <= set(INDEX), name
        assert len(set(parts)) == len(parts), name
    assert len(instrument.GROUPS['brain']) == len(INDEX) - 1


def test_people_of_all_ages_are_chosen():
    people = pd.DataFrame({
        'participant': list('abcdef'),
        'age': [20, 21, 22, 50, 80, np.nan],
        'source': 'x',
    })  # fmt: skip
    assert instrument.of_all_ages(people, 3)['age'].tolist() == [20, 50, 80]
    assert len(instrument.spread_out(people, 4)) == 4
    assert len(instrument.spread_out(people, None)) == 6


def test_orientations_of_storage_are_read_back_exactly():
    data = np.random.default_rng(0).random((12, 14, 16)).astype(np.float32)
    affine = np.diag([5.0, 5, 5, 1])
    for codes in ('LAS', 'PSR', 'LPI'):
        np.testing.assert_array_equal(instrument.stored(data, affine, codes), data)


def test_guises_keep_the_size_of_the_brain():
    mask = ball(40, (32, 33, 34), (64, 66, 66))
    data = (100 * mask + 20).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = -20
    seen = {}
    for name, image, grid, where in instrument.guises(data, affine, mask):
        seen[name] = where.sum() * abs(np.linalg.det(grid[:3, :3])) / mask.sum()
        assert image.shape == where.shape
        assert image.dtype == np.float32
        centre = grid[:3, :3] @ np.argwhere(where).mean(axis=0) + grid[:3, 3]
        still = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
        assert np.linalg.norm(centre - still) < (7.5 if '7 mm' in name else 0.6), name
    assert len(seen) == 14
    for name, size in seen.items():
        assert size < 1 if 'tightly' in name else size == pytest.approx(1, rel=0.05), name


def test_variation_is_told_for_each_region_and_its_share():
    rows = []
    for guise, scale in (('a', 1.0), ('b', 1.0), ('c', 1.1)):
        volumes = instrument.with_groups(dict.fromkeys(INDEX, scale))
        rows.append({'participant': 'p', 'guise': guise, **volumes})
    table = instrument.variations(pd.DataFrame(rows))
    brain = table[(table['region'] == 'brain') & (table['participant'] == 'p')].iloc[0]
    assert brain['cv'] == pytest.approx(np.std([1, 1, 1.1], ddof=1) / np.mean([1, 1, 1.1]))
    assert brain['farthest_guise'] == 'c'
    assert table['share_cv'].max() == pytest.approx(0, abs=1e-12)


def test_a_perfect_instrument_passes_every_test(regions, tmp_path, monkeypatch):
    """Labels instead of a network: recovery of what the images carry, agreement of 1, ages."""
    levels = np.zeros(len(INDEX) + 1, np.float32)
    levels[0] = 600
    shown = ('hippocampus', 'frontal_white_matter', 'lateral_ventricle', 'csf')
    for level, name in enumerate(shown, start=2):
        levels[INDEX[name]] = 100 * level
    affine = np.diag([SPACING, SPACING, SPACING, 1])
    head = instrument.Head(levels[regions], regions, regions > 0, affine)
    change = instrument.Change('hippocampus', 'hippocampus', 0.75, 1, (('hippocampus',),))
    monkeypatch.setattr(instrument, 'CHANGES', (change,))
    monkeypatch.setattr(instrument, 'radial_is_there', lambda: False)
    monkeypatch.setattr(instrument, 'read_head', lambda shared, participant: head)

    def measuring(data, affine, mask, network):
        labels = np.abs(data[..., None] - levels).argmin(axis=-1)
        volumes = {**dict.fromkeys(INDEX, 1.0), **{n: volumes_of(labels)[n] for n in shown}}
        dark = np.clip((300 - data) / 100, 0, 1)[ball(8, (20, 20, 29))]  # with partial volume
        volumes['hippocampus'] = float(dark.sum() * SPACING**3 / 1000)
        return Regions(labels.astype(np.uint8), affine, volumes)

    people = pd.DataFrame({
        'participant': ['p', 'q'], 'source': 'x', 'age': [60.0, 70.0], 'network': 'all',
    })  # fmt: skip
    ager = lambda volumes: 100 - volumes['hippocampus']  # noqa: E731
    tables = instrument.run_changes(people[:1], tmp_path, measuring, ager)
    assert tables['changes']['recovery'].between(0.7, 1.3).all()
    assert tables['changes']['as_expected'].all()
    tables |= instrument.run_agreement(people, tmp_path, measuring, ager)
    found = tables['agreement'].set_index('region')
    assert found.loc['hippocampus', ['ratio', 'dice']].tolist() == pytest.approx([1, 1])
    facts = {'weights': 'none'}
    assert '| hippocampus | neighbours give way | 1 |' in instrument.summarise(tables, facts)
    instrument.write(tables, tmp_path)
    assert len(pd.read_csv(tmp_path / 'changes.tsv', sep='\t')) == 1
