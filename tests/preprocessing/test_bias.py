"""N4 takes a known smooth field out and leaves the scale alone."""

import numpy as np
import pytest

from bids_brainage.preprocessing.bias import correct_bias
from bids_brainage.preprocessing.transforms import grid_points

FIELD_CORRELATION = 0.85  # at 6 mm; 0.94 at 4 mm
LEFT_OVER = 0.5  # share of the field's spread in white matter that may remain
SAME_SCALE = 1e-4


@pytest.fixture(scope='module')
def shaded(take_scan):
    """The brain's box at 6 mm, under a field from 0.7 to 1.4."""
    head = take_scan('shaded', voxel=6.0)
    inside = np.argwhere(head.mask)
    box = tuple(slice(a - 1, b + 2) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    data, mask = head.data[box], head.mask[box]
    x, y, _ = (grid_points(data.shape, affine) - affine[:3, 3]).T.reshape(3, *data.shape)
    field = np.exp(0.3 * np.sin(y / 60) + 0.15 * np.cos(x / 40)).astype(np.float32)
    white = head.truth.tissue['wm'][box] > 0.9
    return data * field, affine, mask, field, white


def test_known_field_is_removed(shaded):
    data, affine, mask, field, white = shaded
    corrected, found = correct_bias(data, affine, mask)
    assert np.corrcoef(np.log(found[mask]), np.log(field[mask]))[0, 1] > FIELD_CORRELATION
    before, after, ideal = (
        v[white].std() / v[white].mean() for v in (data, corrected, data / field)
    )
    assert after - ideal < LEFT_OVER * (before - ideal)
    assert found[mask].mean() == pytest.approx(1, rel=SAME_SCALE)
    assert corrected[mask].mean() == pytest.approx(data[mask].mean(), rel=SAME_SCALE)
    again, _ = correct_bias(data, affine, mask)
    np.testing.assert_array_equal(again, corrected)


def test_negative_intensities_do_not_break_it(shaded):
    data, affine, mask, *_ = shaded
    below = data - 20
    corrected, field = correct_bias(below, affine, mask)
    assert np.isfinite(corrected).all()
    assert np.isfinite(field).all()
    assert corrected.min() >= 0
