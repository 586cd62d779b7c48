"""Draw the pictures of a scan: NIfTI files in, one self-contained SVG file out.

All pictures share one layout (six axial, six coronal, five sagittal slices) in neurological
display: the left of the picture is the person's left, up is anterior or superior.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_brainage.pictures import svg
from bids_brainage.pictures.colours import (
    INNER_OUTLINE,
    OUTLINE,
    TISSUES,
    colour_map,
    region_colours,
    to_hex,
    to_rgb,
)
from bids_brainage.pictures.layers import (
    FLICKER,
    backdrop,
    colour_bar,
    draw_line,
    foreground,
    grey_values,
    layer,
    plan,
    write,
)
from bids_brainage.pictures.mosaic import (
    FloatArray,
    Mosaic,
    Volume,
    load_volume,
    outline,
    paint,
)


def plot_mask(t1w: Path, mask: Path | None, out: Path) -> None:
    """Draw the outline of the brain mask on the native T1w.

    Parameters
    ----------
    t1w : Path
        NIfTI image.
    mask : Path or None
        Of the same head (grids may differ), 1 inside; without one, or with an empty one, the
        image is drawn alone.
    out : Path
        SVG file to write.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    head = load_volume(t1w)
    inside = load_volume(mask) if mask else None
    if inside is None or not inside.data.any():
        mosaic = plan(head, foreground(head))
        body = backdrop(grey_values(paint(mosaic, head)))
        write(out, mosaic, body, 'T1w image, without brain mask', [])
        return
    mosaic = plan(head, inside)
    covered = paint(mosaic, inside)
    edge = draw_line(outline(mosaic, covered), OUTLINE)
    body = backdrop(grey_values(paint(mosaic, head), covered > 0.5)) + edge
    write(out, mosaic, body, 'Brain mask on the T1w image', [('Edge of the mask', OUTLINE)])


def plot_registration(
    template: Path,
    warped: Path,
    out: Path,
    template_mask: Path | None = None,
    template_gm: Path | None = None,
) -> None:
    """Draw the template and the warped scan in turn, with outlines of the template.

    Parameters
    ----------
    template, warped : Path
        T1w images in template space.
    out : Path
        SVG file to write; it alternates by itself unless the reader asked for less motion.
    template_mask : Path, optional
        Brain mask of the template; without it, the template's own non-zero region.
    template_gm : Path, optional
        Grey matter density of the template, outlined at half of its maximum.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    fixed, moved = load_volume(template), load_volume(warped)
    brain = load_volume(template_mask) if template_mask else foreground(fixed)
    mosaic = plan(fixed, brain, margin=6)
    rasters = [grey_values(paint(mosaic, volume)) for volume in (fixed, moved)]
    before, after = svg.encode_rasters(rasters)
    lines = draw_line(outline(mosaic, paint(mosaic, brain)), OUTLINE)
    legend = [('Brain edge of the template', OUTLINE)]
    if template_gm:
        density = load_volume(template_gm)
        half = float(density.data.max()) / 2
        lines += draw_line(outline(mosaic, paint(mosaic, density), half), INNER_OUTLINE, width=1.0)
        legend.append(('Grey matter of the template', INNER_OUTLINE))
    body = (
        FLICKER
        + layer('bba-template', before, mosaic, 'Showing: template')
        + layer('bba-scan', after, mosaic, 'Showing: this scan')
        + lines
    )
    write(out, mosaic, body, 'Registration: template and warped scan in turn', legend)


def plot_segmentation(t1w: Path, dseg: Path, out: Path) -> None:
    """Colour grey matter, white matter and cerebrospinal fluid on the T1w.

    Parameters
    ----------
    t1w, dseg : Path
        NIfTI images of the same space; labels 1 grey matter, 2 white matter,
        3 cerebrospinal fluid (BIDS).
    out : Path
        SVG file to write.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    mosaic, painted, grey = _labelled(t1w, dseg)
    mixed = np.repeat(grey, 3, axis=-1)
    legend = []
    for label, (name, colour) in TISSUES.items():
        chosen = painted == label
        mixed[chosen] = 0.55 * mixed[chosen] + 0.45 * to_rgb(colour)
        seen = mixed[chosen].mean(axis=0) if chosen.any() else to_rgb(colour)
        legend.append((name, to_hex(seen)))  # as it looks on the grey of the image
    body = backdrop(mixed.astype(np.uint8))
    write(out, mosaic, body, 'Tissue map on the T1w image', legend, filled=True)


def _labelled(t1w: Path, dseg: Path) -> tuple[Mosaic, np.ndarray, np.ndarray]:
    """Lay out labels on a T1w: mosaic, label and grey value (H, W, 1) of each pixel."""
    head, labels = load_volume(t1w), load_volume(dseg)
    covered = Volume((labels.data > 0).astype(np.float32), labels.affine, labels.zooms)
    mosaic = plan(head, covered, margin=6)
    painted = np.rint(paint(mosaic, labels, order=0)).astype(int)
    return mosaic, painted, grey_values(paint(mosaic, head), painted > 0).astype(float)[..., None]


def plot_regions(t1w: Path, dseg: Path, out: Path) -> None:
    """Colour the regions of the segmentation network on the T1w, with their borders.

    Parameters
    ----------
    t1w, dseg : Path
        NIfTI images of the same space (grids may differ); any labels, 0 is background.
    out : Path
        SVG file to write.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    mosaic, painted, grey = _labelled(t1w, dseg)
    border = np.zeros(painted.shape, bool)
    border[:, 1:] |= painted[:, 1:] != painted[:, :-1]
    border[1:] |= painted[1:] != painted[:-1]
    alpha = np.where(painted > 0, np.where(border, 0.8, 0.3), 0.0)[..., None]
    mixed = (1 - alpha) * grey + alpha * region_colours(int(painted.max()))[painted]
    body = backdrop(mixed.astype(np.uint8))
    write(out, mosaic, body, 'Regions on the T1w image, one colour each', [])


def plot_saliency(
    t1w: Path, saliency: Path, out: Path, *, unit: str, signed: bool, mask: Path | None = None
) -> None:
    """Lay a saliency or contribution map over the person's own brain.

    Parameters
    ----------
    t1w, saliency : Path
        NIfTI images in the same world space (grids may differ).
    out : Path
        SVG file to write.
    unit : str
        Unit of the map, for example ``years``; written at the colour bar.
    signed : bool
        True: blue lowers and orange raises the predicted age, colours symmetric around 0.
        False: magnitude only, from 0.
    mask : Path, optional
        Brain mask: the slices go through all of it.  Without one, through the whole head.

    Raises
    ------
    UnusableImageError
        If an image cannot be read.
    """
    head, values = load_volume(t1w), load_volume(saliency)
    mosaic = plan(head, load_volume(mask) if mask else foreground(head), margin=6)
    top = colour_limit(values.data)
    mixed = overlaid(paint(mosaic, head), paint(mosaic, values), top, signed=signed)
    title = 'Contribution map' if signed else 'Saliency map'
    body = backdrop(mixed) + colour_bar(mosaic, top, unit, signed)
    write(out, mosaic, body, f'{title} on the T1w image ({unit})', [])


def overlaid(
    head: FloatArray, values: FloatArray, top: float, *, signed: bool
) -> NDArray[np.uint8]:
    """Lay painted values over a painted head; the stronger the value the more it covers.

    Parameters
    ----------
    head, values : ndarray, shape (height, width)
    top : float
        Magnitude that gets the end of the colours.
    signed : bool

    Returns
    -------
    ndarray, shape (height, width, 3)
    """
    scaled = values / (top or 1.0)
    strength = np.clip(np.abs(scaled) if signed else scaled, 0, 1)
    alpha = 0.9 * strength[..., None] ** 0.7
    grey = grey_values(head).astype(float)[..., None]
    return ((1 - alpha) * grey + alpha * colour_map(scaled, signed=signed)).astype(np.uint8)


def colour_limit(values: FloatArray) -> float:
    """Give the 99.5th percentile of the non-zero magnitudes (0 if all are zero)."""
    magnitude = np.abs(values[values != 0])
    return float(np.percentile(magnitude, 99.5)) if magnitude.size else 0.0
