"""The page of all scans: look through them, filter by flag, rate them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bids_brainage.bundles.validation import leading_validation
from bids_brainage.errors import BrainAgeError, MissingInputError
from bids_brainage.flags import flag_table
from bids_brainage.names import CONSENSUS, report_path, source_entities
from bids_brainage.outputs.collect import read_predictions
from bids_brainage.outputs.files import locked, write_text
from bids_brainage.reports.wording import describe, years

PAGE = 'index.html'

THUMBNAILS = ('mask', 'coregistration', 'registration')
"""Figures that can stand for a scan, the best first."""

RATINGS = ('accept', 'unsure', 'reject')


def write_index(output_dir: Path) -> Path | None:
    """Write ``index.html`` from the prediction tables of an output dataset.

    One job at a time reads and writes, so that the last of several jobs lists the rows of all.

    Parameters
    ----------
    output_dir : Path
        Only its files are read; figures stay beside the page and are shown as they are.

    Returns
    -------
    Path or None
        The page; None when there is no prediction table yet.
    """
    with locked(output_dir):
        return _write_index(output_dir)


def _write_index(output_dir: Path) -> Path | None:
    import jinja2

    try:
        found = read_predictions(output_dir)
    except MissingInputError:
        return None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('bids_brainage', 'data/report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scans = _scans(output_dir, found.table.to_dict('records'), found.models)
    seen = {flag.key: flag.label for scan in scans for flag in scan['flags']}
    flags = {key: flag_table().get(key, {}).get('label', label) for key, label in seen.items()}
    path = output_dir / PAGE
    page = environment.get_template('index.html.j2').render(
        scans=scans,
        flags=sorted(flags.items(), key=lambda item: item[1]),
        people=len({scan['person'] for scan in scans}),
        group=(output_dir / 'group.html').exists(),
        ratings=RATINGS,
    )
    write_text(path, page)
    return path


def _scans(
    output_dir: Path, rows: Iterable[Mapping[str, Any]], models: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Lay out one entry for each image, with the age of the model that the reports show first."""
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(str(row['source']), []).append(row)
    pages = {path.name for path in output_dir.glob('sub-*.html')}
    return [
        _scan(output_dir, source, min(found, key=lambda row: _rank(row, models)), pages)
        for source, found in by_source.items()
    ]


def _rank(
    row: Mapping[str, Any], models: Mapping[str, Any]
) -> tuple[bool, bool, bool, float, str]:
    """Order the models of a scan as `bids_brainage.reports.records.headline_model` does."""
    model = str(row['model'])
    facts = models.get(model, {})
    found = leading_validation(facts.get('Validation'), bool(facts.get('TrainingSimulated')))
    simulated, error = (found.simulated, found.mae) if found else (True, float('inf'))
    return (row['predicted_age'] is None, model != CONSENSUS, simulated, error, model)


def _scan(
    output_dir: Path, source: str, row: Mapping[str, Any], pages: set[str]
) -> dict[str, Any]:
    """Lay out one image: names, ages in words, flags, picture and page."""
    person, session = str(row['participant_id']), row.get('session_id')
    own = report_path(person.removeprefix('sub-'), str(session or '').removeprefix('ses-') or None)
    page = next((name for name in (own.name, f'{person}.html') if name in pages), '')
    name = source.rsplit('/', 1)[-1].split('.', 1)[0]
    stem, _, suffix = name.rpartition('_')
    pictures = (f'{person}/figures/{stem}_desc-{what}_{suffix}.svg' for what in THUMBNAILS)
    raw = str(row.get('qc_flag') or '').split(';')
    flags = describe(part.strip() for part in raw if part.strip())
    predicted, age = (_number(row.get(key)) for key in ('predicted_age', 'age'))
    gap = None if predicted is None or age is None else predicted - age
    return {
        'source': source,
        'person': person,
        'session': session or 'n/a',
        'title': ' '.join([person, *_words(stem, row)]),
        'page': page,
        'picture': next((p for p in pictures if (output_dir / p).is_file()), ''),
        'age': years(age),
        'predicted': years(predicted),
        'gap': years(gap, signed=True),
        'gap_value': '' if gap is None else f'{gap:.3f}',
        'model': row['model'],
        'flags': flags,
    }


def _labels(stem: str) -> list[tuple[str, str]]:
    """Return the entities of a name; none of a name that is not of BIDS."""
    try:
        return list(source_entities(stem).items())
    except BrainAgeError:
        return []


def _words(stem: str, row: Mapping[str, Any]) -> list[str]:
    """Return what tells an image from others of the person: labels of its name, or its session."""
    if row.get('modality') == 'table':
        return [str(word) for word in (row.get('session_id'), 'tables') if word]
    return [f'{key}-{label}' for key, label in _labels(stem) if key != 'sub']


def _number(cell: Any) -> float | None:
    """Read a number from a cell of text."""
    try:
        return None if cell is None else float(cell)
    except ValueError:
        return None
