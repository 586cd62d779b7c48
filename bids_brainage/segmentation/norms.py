"""Volumes of a person beside those of the people the program was tried on.

``data/segmentation/muse/curves.json`` has for each structure how its share of the intracranial
volume changes with age (`tools/normative_curves.py`).  It holds for volumes of the same
segmentation weights only: other weights may draw a structure a few per cent larger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import NormalDist
from typing import Any

from bids_brainage.segmentation.regions import OUTER_FLUID, load_regions
from bids_brainage.segmentation.weights import FOLDER

INTRACRANIAL = 'intracranial'
CENTILES = (5, 25, 50, 75, 95)
"""Centiles that a chart shows, per cent."""


@dataclass(frozen=True)
class Structure:
    """A region, or several of them together.

    Attributes
    ----------
    name : str
        Identifier, as in the column ``region``.
    title : str
        What a page calls it.
    parts : tuple of str
        Regions it is made of.
    """

    name: str
    title: str
    parts: tuple[str, ...]


@cache
def load_structures() -> tuple[Structure, ...]:
    """Return the sums of regions that are reported, then the regions, each once."""
    regions = load_regions()
    names = [region.name for region in regions]
    cerebellum = ('cerebellum_cortex', 'vermis', 'cerebellum_white_matter')
    sums = (
        Structure(INTRACRANIAL, 'Intracranial volume', tuple(names)),
        Structure('brain', 'Brain', tuple(n for n in names if n != OUTER_FLUID)),
        Structure(
            'ventricles',
            'Ventricles',
            ('lateral_ventricle', 'temporal_horn', 'third_ventricle', 'fourth_ventricle'),
        ),
        Structure(
            'cortex',
            'Cerebral cortex',
            tuple(n for n in names if n.endswith('_cortex') and n not in cerebellum),
        ),
        Structure(
            'white_matter',
            'Cerebral white matter',
            (
                *(n for n in names if n.endswith('_white_matter') and n not in cerebellum),
                'corpus_callosum',
            ),
        ),
        Structure('cerebellum', 'Cerebellum', cerebellum),
    )
    return (*sums, *(Structure(region.name, region.title, (region.name,)) for region in regions))


@cache
def load_curves() -> dict[str, Any]:
    """Return the content of ``curves.json``."""
    text = files('bids_brainage').joinpath(FOLDER, 'curves.json').read_text('utf-8')
    content: dict[str, Any] = json.loads(text)
    return content


def structure_volumes(regions: Mapping[str, float]) -> dict[str, float]:
    """Return the volume of every structure, millilitres, from those of the regions."""
    return {s.name: sum(regions[part] for part in s.parts) for s in load_structures()}


def shares(volumes: Mapping[str, float]) -> dict[str, float]:
    """Return the volumes of structures as shares of the intracranial volume, 0 to 1."""
    whole = volumes[INTRACRANIAL]
    return {name: volume / whole for name, volume in volumes.items()}


def why_not(segmentation: Mapping[str, Any], age: float | None, *, skull_stripped: bool) -> str:
    """Say why volumes cannot be compared with the curves; empty if they can.

    Parameters
    ----------
    segmentation : mapping
        ``Name``, ``Version``, ``WeightsSHA256`` of the network that drew the regions.
    age : float or None
        Years.
    skull_stripped : bool
        True if the image came without skull, so that the fluid around the brain is not known.
    """
    curves = load_curves()
    if segmentation.get('WeightsSHA256') != curves['weights_sha256']:
        return 'the volumes were measured by another version of the segmentation than the curves'
    if skull_stripped:
        return 'the image came without skull, so the intracranial volume is not known'
    if age is None:
        return 'the age is not known'
    if not curves['age_min'] <= age <= curves['age_max']:
        return (
            f'the age lies outside the ages of the curves, {curves["age_min"]:.0f} to '
            f'{curves["age_max"]:.0f} years'
        )
    return ''


def percentile(structure: str, share: float, age: float, sex: str | None) -> float | None:
    """Return which share of people of the same age (and sex) has a smaller structure.

    Parameters
    ----------
    structure : str
    share : float
        Of the intracranial volume, 0 to 1.
    age : float
        Years, within the curves.
    sex : str or None
        ``F`` or ``M``; anything else compares with both.

    Returns
    -------
    float or None
        Per cent; None for a structure without a curve.
    """
    curve = _curve(structure, sex)
    if curve is None or share <= 0:
        return None
    mean, sd = (_at(age, curve[key]) for key in ('mean', 'sd'))
    return 100 * NormalDist(mean, sd).cdf(math.log(share))


def volume_rows(
    regions: Mapping[str, float], age: float | None, sex: str | None, *, known: bool, whole: bool
) -> list[dict[str, Any]]:
    """Return the rows of the table of volumes.

    Parameters
    ----------
    regions : mapping
        Region → millilitres.
    age : float or None
        Years.
    sex : str or None
    known : bool
        True if `why_not` found nothing: rows get a percentile.
    whole : bool
        False for an image without skull: rows get no share.
    """
    volumes = structure_volumes(regions)
    parts = shares(volumes)
    rows: list[dict[str, Any]] = []
    for name, volume in volumes.items():
        share = parts[name] if whole else None
        place = None
        if known and share is not None and age is not None:
            place = percentile(name, share, age, sex)
        rows.append({
            'region': name,
            'volume': round(volume, 4),
            'share': None if share is None else round(share, 7),
            'percentile': None if place is None else round(place, 1),
        })  # fmt: skip
    return rows


def centile_lines(structure: str, sex: str | None) -> dict[int, list[tuple[float, float]]]:
    """Return (age, share) points of the line of each of `CENTILES`."""
    curve = _curve(structure, sex)
    if curve is None:
        return {}
    lines: dict[int, list[tuple[float, float]]] = {}
    for centile in CENTILES:
        z = NormalDist().inv_cdf(centile / 100)
        points = zip(load_curves()['age'], curve['mean'], curve['sd'], strict=True)
        lines[centile] = [(age, math.exp(mean + z * sd)) for age, mean, sd in points]
    return lines


def _curve(structure: str, sex: str | None) -> dict[str, list[float]] | None:
    """Return mean and SD of the logarithm of the share at the ages of the curves."""
    found: dict[str, Any] | None = load_curves()['structures'].get(structure)
    if found is None:
        return None
    curve: dict[str, list[float]] = found.get(sex or 'all') or found['all']
    return curve


def _at(age: float, values: list[float]) -> float:
    """Interpolate between the ages of the curves."""
    ages = load_curves()['age']
    after = next((i for i, known in enumerate(ages) if known >= age), len(ages) - 1)
    before = max(after - 1, 0)
    span = ages[after] - ages[before]
    part = (age - ages[before]) / span if span else 0.0
    return float(values[before] + part * (values[after] - values[before]))
