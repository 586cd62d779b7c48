"""The page of several architectures side by side, trained on one split.

As Figures 11 and 12 and Tables 2 to 8 of Zhu et al., Bioengineering 2026, 13(3):315
(doi:10.3390/bioengineering13030315).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.outputs.files import write_text
from bids_brainage.reports.group_charts import Dots, scatter
from bids_brainage.reports.page import fill_template
from bids_brainage.reports.wording import decimal

Row = Mapping[str, Any]
Judged = Mapping[str, Mapping[str, Sequence[Row]]]
"""Role → model → its scans with ``participant_id``, ``age`` and ``predicted_age``, years."""

_HEADINGS = {
    'mae': 'Mean absolute error, years',
    'mmae': 'Worst decade, years',
    'me': 'Mean error, years',
    'r2': 'R²',
    'r': 'r',
    'mde': 'Mean error of change, years',
    'made': 'Mean absolute error of change, years',
    'mmade': 'Worst decade of change, years',
    'icc_3_1': 'ICC(3,1)',
    'mu_d': 'First minus second scan, years',
    'sigma_d': 'SD of these differences, years',
    'sigma_scan': 'SD within a person, years',
}
_DIGITS = {'r': 3, 'r2': 3, 'icc_3_1': 3}
_SUBSETS = {
    'all': 'Test people of all ages',
    'longitudinal': 'Change between visits',
    'test-retest': 'Repeated scans',
}


def write_comparison(
    path: Path, models: Sequence[str], judged: Judged, rows: Sequence[Row]
) -> Path:
    """Write the page.

    Parameters
    ----------
    path : Path
        The HTML file.
    models : sequence of str
        Their names.
    judged : mapping
        Scans of people who trained no model.
    rows : sequence of mapping
        The table of `bids_brainage.training.comparison.comparison_rows`.

    Returns
    -------
    Path
        The file.
    """
    page = fill_template(
        'comparison',
        models=list(models),
        figures=[_figures(role, chosen) for role, chosen in judged.items()],
        tables=[
            _table(name, rows) for name in dict.fromkeys(row['subset'] for row in rows if row['n'])
        ],
    )
    write_text(path, page)
    return path


def _figures(role: str, chosen: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Draw predicted against true age of the people of a role by each model, on equal axes."""
    points = {
        name: Dots(
            np.array([row['age'] for row in scans], float),
            np.array([row['predicted_age'] for row in scans], float),
            [str(row['participant_id']) for row in scans],
        )
        for name, scans in chosen.items()
    }
    span = [value for dots in points.values() for value in (*dots.x, *dots.y)]
    return {
        'role': role,
        'figures': [
            {
                'title': name,
                'svg': scatter(
                    dots,
                    ('age, years', 'predicted age, years'),
                    identity=True,
                    span=span,
                ),
                'caption': f'{len(dots.names)} scans; the dashed line is perfect.',
            }
            for name, dots in points.items()
        ],
    }


def _table(subset: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Lay out the rows of a subset, without the columns that it does not have."""
    own = [row for row in rows if row['subset'] == subset]
    shown = [c for c in own[0] if c in _HEADINGS and any(row[c] is not None for row in own)]
    _, unseen, cohort = subset.partition('unseen ')
    ages = f'Test people of {subset} years'
    return {
        'title': f'The unseen cohort {cohort}' if unseen else _SUBSETS.get(subset, ages),
        'headings': [_HEADINGS[c] for c in shown],
        'rows': [
            (row['model'], row['n'], [decimal(row[c], _DIGITS.get(c, 2)) for c in shown])
            for row in own
        ],
    }
