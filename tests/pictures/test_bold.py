"""Pictures of BOLD series: order, scale, marks and colours are those of the data."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest

from bids_brainage.pictures import bold as figures_bold
from bids_brainage.pictures.svg import sanitise


def _pictures(markup):
    from PIL import Image

    found = re.findall(r'data:image/png;base64,([^"]+)', markup)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(f))).convert('RGB')) for f in found]


def test_regions_stand_by_network_and_those_without_come_last():
    order, bands = figures_bold.order_by_network(['B', 'Uncertain', 'A', 'B', '', 'A'])
    assert list(order) == [2, 5, 0, 3, 4, 1]
    assert bands == [('A', 2), ('B', 2), ('', 1), ('Uncertain', 1)]


def test_full_colour_is_the_98th_percentile_within_limits():
    matrix = np.full((10, 10), 0.5)
    assert figures_bold.connectivity_limit(matrix) == pytest.approx(0.5)
    assert figures_bold.connectivity_limit(matrix / 10) == 0.3
    assert figures_bold.connectivity_limit(matrix * np.nan) == 1


def test_matrix_colours_follow_sign_and_missing_values(tmp_path):
    matrix = np.array([[1, 0.8, -0.8, np.nan], [0.8, 1, 0, 0], [-0.8, 0, 1, 0], [np.nan, 0, 0, 1]])
    out = tmp_path / 'matrix.svg'
    figures_bold.plot_connectivity(matrix, ['A', 'A', 'B', 'B'], out, title='T')
    raster = _pictures(sanitise(out.read_text()))[0]
    cell = len(raster) // 4
    red, _, blue = raster[cell // 2, cell + cell // 2].astype(int)
    assert red > blue  # positive is orange
    red, _, blue = raster[cell // 2, 2 * cell + cell // 2].astype(int)
    assert blue > red  # negative is blue
    for row, column in ((0, 0), (0, 3), (3, 0)):
        pixel = raster[cell // 2 + row * cell, cell // 2 + column * cell]
        assert tuple(pixel) == figures_bold.NO_VALUE


def test_every_network_is_named(tmp_path):
    out = tmp_path / 'matrix.svg'
    names = ['Visual'] * 3 + [''] * 2
    figures_bold.plot_connectivity(np.eye(5), names, out)
    assert '>Visual<' in out.read_text()
    assert '>no network<' in out.read_text()


def test_carpet_shows_traces_marks_and_grey_values(tmp_path):
    values = np.zeros((40, 30), np.float32)
    values[:, 10] = 10
    values[:, 20] = -10
    kept = np.ones(30, bool)
    kept[[3, 4, 5]] = False
    displacement = np.r_[np.nan, np.full(29, 0.25)]
    out = tmp_path / 'carpet.svg'
    figures_bold.plot_carpet(
        values, [('Cortex', 30), ('Fluid', 10)], displacement, None, kept, 2.0, out
    )
    markup = sanitise(out.read_text())
    assert '30 volumes, 3 left out' in markup
    assert 'mean 0.25 mm' in markup
    assert 'DVARS' not in re.sub(r'<desc>.*?</desc>', '', markup)
    assert markup.count(f'fill="{figures_bold.CENSORED}"') == 3
    assert len(re.search(r'points="([^"]+)"', markup)[1].split()) == 29  # the first is unknown
    raster = _pictures(markup)[0]
    column = raster.shape[1] // 30
    assert raster[5, 10 * column] == pytest.approx(255)
    assert raster[5, 20 * column] == pytest.approx(0)
    assert raster[5, 0] == pytest.approx(127, abs=1)


def test_noise_is_drawn_without_loss(tmp_path):
    """Pure noise is what JPEG encoders choke on."""
    noise = np.random.default_rng(0).uniform(-1, 1, (264, 264))
    out = tmp_path / 'noise.svg'
    figures_bold.plot_connectivity((noise + noise.T) / 2, ['A'] * 264, out)
    assert _pictures(out.read_text())[0].shape == (792, 792, 3)
    assert out.stat().st_size < 400_000
