"""A person's volumes beside those of people of the same age."""

import math

import pytest

from bids_brainage.segmentation import norms
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.segmentation.weights import segmentation_facts

REGIONS = {region.name: float(region.index) for region in load_regions()}
OURS = segmentation_facts()


def test_curves_belong_to_the_packaged_weights():
    """Weights that are replaced need new curves: `tools/normative_curves.py`."""
    assert norms.load_curves()['weights_sha256'] == OURS['WeightsSHA256']
    assert norms.why_not(OURS, 50.0, skull_stripped=False) == ''


@pytest.mark.parametrize(
    ('facts', 'age', 'stripped', 'reason'),
    [
        ({**OURS, 'WeightsSHA256': '0' * 64}, 50.0, False, 'another version'),
        ({}, 50.0, False, 'another version'),
        (OURS, 50.0, True, 'without skull'),
        (OURS, None, False, 'not known'),
        (OURS, 7.0, False, 'outside the ages of the curves, 19 to'),
        (OURS, 120.0, False, 'outside the ages of the curves'),
    ],
)
def test_volumes_that_cannot_be_compared_are_not(facts, age, stripped, reason):
    assert reason in norms.why_not(facts, age, skull_stripped=stripped)


def test_sums_are_made_of_their_regions():
    volumes = norms.structure_volumes(REGIONS)
    assert volumes['intracranial'] == pytest.approx(sum(REGIONS.values()))
    assert volumes['brain'] == pytest.approx(volumes['intracranial'] - REGIONS['csf'])
    assert volumes['ventricles'] == 2 + 3 + 4 + 5
    assert volumes['cortex'] == sum(range(25, 40))
    assert volumes['white_matter'] == 19 + 20 + 21 + 22 + 23 + 24
    assert volumes['cerebellum'] == 16 + 17 + 18
    assert volumes['hippocampus'] == REGIONS['hippocampus']


@pytest.mark.parametrize('structure', ['brain', 'ventricles', 'hippocampus', 'cortex'])
@pytest.mark.parametrize('sex', ['F', 'M', 'other', None])
def test_a_share_on_a_line_has_the_percentile_of_the_line(structure, sex):
    for centile, points in norms.centile_lines(structure, sex).items():
        for age, share in points[::4]:
            assert norms.percentile(structure, share, age, sex) == pytest.approx(centile, abs=0.01)


def test_brains_change_with_age_as_is_known():
    """Ventricles grow and brain and cortex shrink; the usual at 75 is rare at 25 years."""
    for structure, sign in (('ventricles', 1), ('brain', -1), ('cortex', -1)):
        median = dict(norms.centile_lines(structure, None)[50])
        young, old = (min(median, key=lambda age, at=at: abs(age - at)) for at in (25, 75))
        assert sign * (median[old] - median[young]) > 0
        place = norms.percentile(structure, median[old], young, None)
        assert (place if sign > 0 else 100 - place) > 85


def test_percentile_between_two_ages_lies_between_those_at_them():
    ages = norms.load_curves()['age']
    share = norms.centile_lines('ventricles', 'F')[50][10][1]
    before, middle, after = (
        norms.percentile('ventricles', share, age, 'F')
        for age in (ages[10], (ages[10] + ages[11]) / 2, ages[11])
    )
    assert before > middle > after


def test_people_left_out_lie_below_the_lines_as_often_as_they_say():
    found = dict(norms.load_curves()['people_left_out_below'])
    centiles, n = found.pop('centiles'), norms.load_curves()['n']
    for name in ('brain', 'ventricles', 'cortex', 'white_matter', 'hippocampus'):
        for centile, share in zip(centiles, found[name], strict=True):
            error = 100 * math.sqrt(centile * (100 - centile) / 100**2 / n)
            assert abs(share - centile) < 4 * error, (name, centile)


def test_rows_leave_out_what_is_not_known():
    rows = norms.volume_rows(REGIONS, 50.0, 'F', known=True, whole=True)
    assert [row['region'] for row in rows][:3] == ['intracranial', 'brain', 'ventricles']
    assert rows[0]['share'] == 1.0
    assert rows[0]['percentile'] is None
    assert all(0 <= row['percentile'] <= 100 for row in rows[1:])
    for known, whole in ((False, True), (False, False)):
        rows = norms.volume_rows(REGIONS, 50.0, 'F', known=known, whole=whole)
        assert all(row['percentile'] is None for row in rows)
        assert all((row['share'] is None) is not whole for row in rows)
        assert rows[2]['volume'] == 14.0
