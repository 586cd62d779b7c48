"""Bars that say what each region adds to a predicted age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bids_brainage.reports import charts, wording
from bids_brainage.reports.records import Result, ScanRecord, picture_model

REGIONS_SHOWN = 14
FULL_YEARS = 10.0
"""Years that fill one half of a chart, the same on every page, so that pages can be compared."""


def contribution_views(scan: ScanRecord) -> list[dict[str, Any]]:
    """Prepare the charts of each model: against people of one age, and against all people.

    Each starts at a base age, and the bars add up to the predicted age: the largest first, the
    rest summed up.
    """
    views: list[dict[str, Any]] = []
    for result in scan.results:
        shares = _shares(scan, result)
        if not shares or result.predicted is None:
            continue
        total = sum(shares.values())
        base = result.base_age if result.base_age is not None else result.predicted - total
        views.append({
            'model': result.model,
            'text': wording.contributions_text(scan, result, total),
            'beyond': ', '.join(result.facts.get('Beyond') or ()),
            'full': f'{FULL_YEARS:g}',
            'chart': _chart(shares, base, result.predicted, wording.base_label(scan, result)),
            'whole': _from_mean(result),
        })  # fmt: skip
    return views


def _shares(scan: ScanRecord, result: Result) -> dict[str, float]:
    """Return years by region, from the prediction or from the side file of its map."""
    if not result.ok:
        return {}
    shares = dict(result.contributions)
    for picture in scan.pictures:
        noted = picture.note.get('Contributions')
        if picture_model(picture, scan) == result.model and isinstance(noted, Mapping):
            shares = shares or {str(k): float(v) for k, v in noted.items()}
    return shares


def _from_mean(result: Result) -> dict[str, Any] | None:
    """Prepare the chart against the mean of all people the model knows, if it is another one."""
    found = result.facts.get('ContributionsFromMean')
    if not isinstance(found, Mapping) or not found or result.predicted is None:
        return None
    shares = {str(k): float(v) for k, v in found.items()}
    base = result.predicted - sum(shares.values())
    return _chart(shares, base, result.predicted, 'the mean of all people the model knows')


def _chart(shares: Mapping[str, float], base: float, age: float, who: str) -> dict[str, Any]:
    """Lay out one chart: base age, bars, predicted age."""
    ordered = sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))
    bars = ordered[:REGIONS_SHOWN]
    if rest := ordered[REGIONS_SHOWN:]:
        bars.append((f'{len(rest)} other regions together', sum(v for _, v in rest)))
    return {
        'base': (f'Base age: {who}', wording.years(base)),
        'rows': [(name, wording.small_years(v), charts.bar(v, FULL_YEARS)) for name, v in bars],
        'age': ('Predicted age', wording.years(age)),
    }
