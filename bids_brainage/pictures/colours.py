"""Colours of pictures and charts, chosen to be told apart by colour-blind readers.

The categorical colours are those of Okabe and Ito (2008), "Color universal design".
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTLINE = '#F5A623'
INNER_OUTLINE = '#56B4E9'
#: BIDS labels of a discrete tissue segmentation: name and colour
TISSUES = {
    1: ('Grey matter', '#56B4E9'),
    2: ('White matter', '#E69F00'),
    3: ('Cerebrospinal fluid', '#CC79A7'),
}
#: dark to light, so that more reads as brighter on a dark picture
_SEQUENTIAL = ('#3b0f70', '#8c2981', '#de4968', '#fe9f6d', '#fcfdbf')
#: light blue - blue - dark - orange - light yellow: both ends grow brighter with magnitude
_DIVERGING = ('#a6e3ff', '#3d9be0', '#1d4b8f', '#30303a', '#8f3a12', '#e8772e', '#ffe08a')


def region_colours(count: int) -> NDArray[np.float64]:
    """Give each label its colour: hues a golden angle apart, dark and light in turn.

    Parameters
    ----------
    count : int
        Number of labels, without background.

    Returns
    -------
    ndarray, shape (count + 1, 3)
        Red, green, blue from 0 to 255 by label; the background, 0, is black.
    """
    hues = [(number * 0.618034 % 1, (0.45, 0.7)[number % 2]) for number in range(count)]
    rows = [(0.0, 0.0, 0.0), *(colorsys.hls_to_rgb(hue, light, 0.8) for hue, light in hues)]
    return 255 * np.array(rows)


def to_rgb(colour: str) -> NDArray[np.float64]:
    """Turn ``#rrggbb`` into three numbers from 0 to 255."""
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=float)


def to_hex(rgb: NDArray[np.floating[Any]]) -> str:
    """Turn three numbers from 0 to 255 into ``#rrggbb``."""
    return '#' + ''.join(f'{round(float(value)):02x}' for value in rgb)


def colour_map(values: NDArray[np.floating[Any]], *, signed: bool) -> NDArray[np.float64]:
    """Look up colours for scaled values.

    Parameters
    ----------
    values : ndarray, any shape
        From -1 to 1 when `signed`, else from 0 to 1; clipped.
    signed : bool
        Diverging (blue negative, orange positive) or sequential colours.

    Returns
    -------
    ndarray, shape ``values.shape + (3,)``
        Red, green, blue from 0 to 255.
    """
    anchors = np.stack([to_rgb(colour) for colour in (_DIVERGING if signed else _SEQUENTIAL)])
    stops = np.linspace(-1 if signed else 0, 1, len(anchors))
    return np.stack([np.interp(values, stops, anchors[:, c]) for c in range(3)], axis=-1)
