"""The training page: how well a new model does, how it got there, and on whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.inference.interval import half_width_text
from bids_brainage.outputs.files import write_text
from bids_brainage.pictures.svg import tag, text
from bids_brainage.reports.charts import nice_axis
from bids_brainage.reports.group_charts import HEIGHT, WIDTH, Dots, Plane, histogram, scatter
from bids_brainage.reports.page import fill_template
from bids_brainage.reports.wording import decimal

Row = Mapping[str, Any]

AGE_BIN = 5.0
"""Years."""


def write_training_report(
    path: Path,
    metadata: Mapping[str, Any],
    predictions: Sequence[Row],
    histories: Mapping[int, Sequence[Mapping[str, float]]],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page.

    Parameters
    ----------
    path : Path
        The HTML file.
    metadata : mapping
        Metadata of the finished bundle.
    predictions : sequence of mapping
        One row per scan and fold: ``participant_id``, ``fold``, ``role``, ``age``, ``sex``,
        ``predicted_age`` (years).
    histories : mapping
        Fold → one row per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``val_mae``...
    notes : sequence of str
        Cautions, shown first.

    Returns
    -------
    Path
        The file.
    """
    write_text(path, render_training_page(metadata, predictions, histories, notes))
    return path


def render_training_page(
    metadata: Mapping[str, Any],
    predictions: Sequence[Row],
    histories: Mapping[int, Sequence[Mapping[str, float]]],
    notes: Sequence[str] = (),
) -> str:
    """Render the page as self-contained HTML; see :func:`write_training_report`."""
    recipe = metadata['training']['recipe']
    return fill_template(
        'training',
        card={'fusion': None, **metadata},
        check=metadata['validation'][0],
        notes=list(notes),
        tiles=_tiles(metadata),
        figures=_figures([row for row in predictions if row['role'] == 'test']),
        curves=[_curve(fold, rows, len(histories)) for fold, rows in histories.items() if rows],
        people=people_rows(predictions),
        ages=_ages(predictions),
        recipe=[
            (f'{section}.{key}', _plain(value))
            for section, values in recipe.items()
            for key, value in values.items()
        ],
    )


def people_rows(predictions: Sequence[Row]) -> list[dict[str, Any]]:
    """Return people, scans, ages, sexes and mean absolute error of each fold and role."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in predictions:
        groups.setdefault((int(row['fold']), row['role']), []).append(row)
    result = []
    for (fold, role), rows in groups.items():
        people = {row['participant_id']: row['sex'] for row in rows}
        known = [sex for sex in people.values() if sex in ('F', 'M')]
        ages = [row['age'] for row in rows]
        share = f'{100 * known.count("F") / len(known):.0f} %' if known else 'n/a'
        result.append(
            {
                'fold': fold,
                'role': role,
                'people': len(people),
                'scans': len(rows),
                'low': min(ages),
                'high': max(ages),
                'female': share,
                'error': np.mean([abs(row['predicted_age'] - row['age']) for row in rows]),
            }
        )
    return result


def _tiles(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    check, conformal = metadata['validation'][0], metadata['conformal']
    baseline = decimal(check['median_baseline_mae'])
    tiles = [
        ('Mean absolute error', check['mae'], 'years', f'always the median age: {baseline}'),
        ('Worst decade', check.get('mmae'), 'years', 'mean absolute error of the worst one'),
        ('Bias', check['bias'], 'years', 'mean of predicted minus true'),
    ]
    shown = [
        {'name': name, 'value': decimal(value), 'unit': unit, 'note': note}
        for name, value, unit, note in tiles
    ]
    shown.append(
        {'name': 'Correlation r', 'value': decimal(check['r'], 3), 'unit': '', 'note': ''}
    )
    if conformal:
        covered = check.get('interval_coverage')
        note = 'n/a' if covered is None else f'{100 * covered:.0f} % of the held-out people'
        shown.append(
            {
                'name': f'{100 * conformal["level"]:.0f} % interval',
                'value': f'± {half_width_text(conformal)}',
                'unit': 'years',
                'note': f'holds {note}, each judged by the others',
            }
        )
    return shown


def _figures(rows: Sequence[Row]) -> list[dict[str, str]]:
    if not rows:
        return []
    age = np.array([row['age'] for row in rows], float)
    predicted = np.array([row['predicted_age'] for row in rows], float)
    names = [str(row['participant_id']) for row in rows]
    return [
        {
            'title': 'Predicted against true age',
            'svg': scatter(
                Dots(age, predicted, names),
                ('age, years', 'predicted age, years'),
                identity=True,
            ),
            'caption': f'{len(rows)} scans of held-out people; the dashed line is perfect.',
        },
        {
            'title': 'Error against age',
            'svg': scatter(
                Dots(age, predicted - age, names),
                ('age, years', 'predicted minus age, years'),
                levels={'no error': 0.0},
            ),
            'caption': 'A downward slope is regression to the mean age.',
        },
    ]  # fmt: skip


def _ages(predictions: Sequence[Row]) -> list[dict[str, str]]:
    """Draw how many people of each age have each role, those of the first fold."""
    first = min((int(row['fold']) for row in predictions), default=1)
    ages: dict[str, dict[str, float]] = {}
    for row in predictions:
        if int(row['fold']) == first:
            people = ages.setdefault(row['role'], {})
            person = row['participant_id']
            people[person] = min(row['age'], people.get(person, row['age']))
    return [
        {
            'title': role.capitalize(),
            'svg': histogram(
                np.array(list(people.values()), float), AGE_BIN, ('age, years', 'people')
            ),
            'caption': f'{len(people)} people by age at the first visit, {AGE_BIN:g} years a bar.',
        }
        for role, people in ages.items()
    ]


def _curve(fold: int, rows: Sequence[Mapping[str, float]], n_folds: int) -> dict[str, str]:
    """Draw validation error and both losses of a fold over its epochs."""
    epochs = [row['epoch'] for row in rows]
    mae = [row['val_mae'] for row in rows]
    best = min(range(len(rows)), key=lambda k: mae[k] if math.isfinite(mae[k]) else math.inf)
    seconds = sum(row['seconds'] for row in rows)
    return {
        'title': f'Fold {fold}' if n_folds > 1 else 'Validation error',
        'svg': error_curve(epochs, mae, best),
        'caption': (
            f'Mean absolute error on the validation people over {len(rows)} epochs '
            f'({seconds / 60:.1f} min); lowest {mae[best]:.2f} years in epoch {epochs[best]:.0f}. '
            f'Loss of the last epoch: training {rows[-1]["train_loss"]:.3g}, validation '
            f'{rows[-1]["val_loss"]:.3g}.'
        ),
    }


def error_curve(epochs: Sequence[float], errors: Sequence[float], best: int) -> str:
    """Draw an error over epochs with its lowest point.

    Parameters
    ----------
    epochs, errors : sequence of float
        Equal lengths, at least one; errors in years.
    best : int
        Index of the point to mark.

    Returns
    -------
    str
        An ``svg`` element.
    """
    known = [(e, v) for e, v in zip(epochs, errors, strict=True) if math.isfinite(v)]
    plane = Plane(
        nice_axis([0.0, *epochs], least=2), nice_axis([0.0, *(v for _, v in known)], least=1)
    )
    parts = [plane.frame('epoch', 'MAE, years')]
    if len(known) > 1:
        parts.append(plane.line([e for e, _ in known], [v for _, v in known], 'mean-line'))
    if known:
        x, y = plane.px(epochs[best]), plane.py(errors[best])
        parts.append(tag('circle', cx=x, cy=y, r=5, class_='point'))
        parts.append(text(f'{errors[best]:.2f}', x, y - 10, class_='level', text_anchor='middle'))
    label = f'Validation error by epoch, lowest {errors[best]:.2f} years'
    box = f'0 0 {WIDTH} {HEIGHT}'
    body = ''.join(parts)
    return tag('svg', body, class_='chart plot', viewBox=box, role='img', aria_label=label)


def _plain(value: Any) -> str:
    """Write a recipe value for reading."""
    if isinstance(value, list | tuple):
        return ', '.join(map(_plain, value))
    return f'{value:g}' if isinstance(value, float) else str(value) if value != '' else 'none'
