"""Features of a brain from what other programs measured.

A feature is the logarithm of a measure or of a ratio of two, and is written as text:
``'Hippocampus/brain'`` (volumes, both sides together), ``'brain'``, ``'insula thickness/cortex
thickness'`` (means of both hemispheres), ``'cortex area/brain'``, ``'insula volume/cortex'``.  A
measure of one side only counts for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bids_brainage.dataset.stats_files import BRAIN, HEAD
from bids_brainage.errors import BundleError
from bids_brainage.inputs.arrays import find_file
from bids_brainage.inputs.kinds import Files, PreparedInput
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.quality import image_flags
from bids_brainage.segmentation.regions import load_regions
from bids_brainage.tsv import read_tsv

SMALLEST_MM3 = 20.0
"""Volumes below count as this one: a structure that was not found is no infinitely small one."""

LITRE = 1e6
"""mm3."""

MUSE = 'MUSE-4'
"""A region that every table of DLMUSE has, the third ventricle."""

_TOTALS = {'brain': BRAIN, 'head': HEAD}
_SUMS = {'white matter': 'CerebralWhiteMatterVol', 'cortex': 'CortexVol'}


def measures(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Return the features of one visit, NaN for what was not measured."""
    path = find_file(files, 'measures')
    table = read_json(side_file(path))
    found = {row['measure']: float(row['value']) for row in read_tsv(path)}
    if table['Program'] not in declared['programs']:
        raise BundleError(
            f'the model was made for measures of {" or ".join(declared["programs"])}, found those '
            f'of {table["Program"]}. Choose another model.'
        )
    return PreparedInput(
        (measured_features(declared['features'], found),), None, declared['space']
    )


def measured_features(names: Sequence[str], found: Mapping[str, float]) -> np.ndarray:
    """Return features of one visit from the measures of any of the programs; see `features_of`."""
    if MUSE in found:
        return log_ratios(muse_volumes(found), names)
    return features_of(found, names)


def features_of(found: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Return features of one visit.

    Parameters
    ----------
    found : mapping
        Measure → mm3, mm2 or mm, named as in `bids_brainage.dataset.stats_files`.
    names : sequence of str
        As the text at the top of this module says.

    Returns
    -------
    ndarray of float64, shape (len(names),)
        NaN where a measure is absent, and for the share of the brain in the head where the size
        of the head is wrong (`head_is_wrong`).

    Examples
    --------
    >>> one_side = {'Left-Hippocampus': 4000.0, 'BrainSegVolNotVent': 8e5}
    >>> features_of(one_side, ['Hippocampus/brain']).round(4).tolist()  # ln 0.01
    [-4.6052]
    """
    return np.array([_feature(found, name) for name in names])


def _feature(found: Mapping[str, float], name: str) -> float:
    if 'head' in name.split('/') and head_is_wrong(found):
        return math.nan
    values = [_amount(found, part) for part in name.split('/')]
    logs = [math.log(value) if value > 0 else math.nan for value in values]
    return logs[0] if len(logs) == 1 else logs[0] - logs[1]


def _amount(found: Mapping[str, float], name: str) -> float:
    """Return a volume (mm3), area (mm2) or thickness (mm); NaN if it was not measured."""
    if name.endswith(' thickness'):
        return _both(found, name.removesuffix(' thickness'), 'thickness') / 2
    for what in ('area', 'volume'):
        if name.endswith(f' {what}'):
            return _both(found, name.removesuffix(f' {what}'), what)
    if name in _TOTALS:
        return found.get(_TOTALS[name], math.nan)
    sides = [found.get(f'{side}-{name}') for side in ('Left', 'Right')]
    if name in _SUMS:
        sides = [found.get(f'{side}{_SUMS[name]}') for side in ('lh', 'rh')]
    known = [value for value in sides if value is not None]
    if known:
        return max(2 * sum(known) / len(known), SMALLEST_MM3)
    whole = found.get(_SUMS.get(name, name))
    return math.nan if whole is None else max(whole, SMALLEST_MM3)


def _both(found: Mapping[str, float], region: str, what: str) -> float:
    """Return the sum over both hemispheres, of a single one twice its value."""
    values = [found.get(f'{side}-{region}-{what}') for side in ('lh', 'rh')]
    known = [value for value in values if value is not None]
    return 2 * sum(known) / len(known) if known else math.nan


def quality_of(found: Mapping[str, float]) -> dict[str, float]:
    """Return the checked measures of a visit, for `bids_brainage.preprocessing.quality`.

    Parameters
    ----------
    found : mapping
        As for `features_of`.

    Returns
    -------
    dict
        ``head_litres``, ``brain_share`` (of the brain with its ventricles in the head) and
        ``surface_holes`` (before they were closed), where known; ``hemispheres_missing``.

    Examples
    --------
    >>> quality_of({'eTIV': 1.5e6, 'BrainSegVol': 1.2e6, 'lh-cortex-area': 9e4})
    {'hemispheres_missing': 1.0, 'head_litres': 1.5, 'brain_share': 0.8}
    """
    sides = [f'{side}-cortex-area' in found for side in ('lh', 'rh')]
    quality = {'hemispheres_missing': float(sum(sides) == 1)}
    brain = found.get('BrainSegVol', found.get(BRAIN))
    if head := found.get(HEAD):
        quality['head_litres'] = head / LITRE
        if brain is not None:
            quality['brain_share'] = brain / head
    if 'SurfaceHoles' in found:
        quality['surface_holes'] = found['SurfaceHoles']
    return quality


def head_is_wrong(found: Mapping[str, float]) -> bool:
    """Return whether the intracranial volume cannot be right, as of cropped or stripped images."""
    return not {'tables_head', 'tables_share'}.isdisjoint(image_flags(quality_of(found)))


def muse_volumes(found: Mapping[str, float]) -> dict[str, float]:
    """Return region volumes in mL from those of the MUSE atlas in mm3.

    The fluid around the brain is region 1, or 600 in tables of sums.
    """
    known = {'MUSE-1': found.get('MUSE-600', math.nan), **found}
    return {
        region.name: sum(known.get(f'MUSE-{code}', math.nan) for code in region.muse) / 1000
        for region in load_regions()
    }
