"""The rows of prediction tables that are there: reading them, and what the tables say now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.dataset.scan import Scan
from bids_brainage.inference.interval import corrected_age, in_training_range
from bids_brainage.outputs import brainage_row, read_brainage, write_brainage
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.quality import with_age_flag
from bids_brainage.workflows.images import table_path
from bids_brainage.workflows.naming import scan_columns

Row = dict[str, Any]


def rows_of(output_dir: Path, scans: Sequence[Scan], names: Collection[str]) -> list[Row]:
    """Return the table rows of the given scans and models."""
    rows = []
    for scan in scans:
        table = table_path(output_dir, scan)
        if table.is_file():
            rows += [
                row
                for row in read_brainage(table)
                if row['source'] == scan.uri and row['model'] in names
            ]
    return rows


def refresh_rows(output_dir: Path, scan: Scan) -> list[str]:
    """Bring the rows of a scan up to date with what the dataset says of the person.

    Age and sex of every row, also of models that are not run, and all that follows from the age:
    gap, corrected age, whether it lies in the training range, and the flag for that.  Nothing is
    predicted; the rest comes from the side file.

    Parameters
    ----------
    output_dir : Path
    scan : Scan

    Returns
    -------
    list of str
        Models whose rows changed and whose explanation compares with people of another age.
    """
    table = table_path(output_dir, scan)
    if not table.is_file():
        return []
    models = read_json(table.with_suffix('.json')).get('Models', {})
    old = {row['model']: row for row in read_brainage(table) if row['source'] == scan.uri}
    new: dict[str, Row] = {}
    # the consensus comes after its members
    for name in sorted(old, key=lambda name: 'Members' in models.get(name, {})):
        new[name] = _refreshed(old[name], scan, models.get(name, {}), new)
    changed = [name for name in old if new[name] != old[name]]
    if changed:
        write_brainage(table, [new[name] for name in changed])
    compared = {name: models.get(name, {}).get('ReferenceAge') for name in changed}
    return [name for name, age in compared.items() if age not in (None, new[name]['age'])]


def _refreshed(row: Row, scan: Scan, facts: Mapping[str, Any], others: Mapping[str, Row]) -> Row:
    """Return a row with the age and sex that the dataset gives now."""
    row = {**row, **scan_columns(scan), 'brain_age_gap': None}
    if row['predicted_age'] is None:
        return brainage_row(**row)
    low, high = facts.get('TrainingAgeRange', (None, None))
    members = facts.get('Members')
    if members is None:
        corrected = corrected_age(row['predicted_age'], row['age'], facts.get('BiasCorrection'))
    else:
        weights = {name: member['Weight'] for name, member in members.items()}
        corrected = weighted_corrected(weights, others)
    flags = with_age_flag((row['qc_flag'] or '').split(';'), row['age'], (low, high))
    return brainage_row(
        **{
            **row,
            'predicted_age_corrected': corrected,
            'in_training_range': in_training_range(row['age'], (low, high)),
            'qc_flag': ';'.join(filter(None, flags)) or None,
        }
    )


def weighted_corrected(weights: Mapping[str, float], rows: Mapping[str, Row]) -> float | None:
    """Return the mean of the corrected ages of the members, years; None if one has none."""
    ages = {name: rows.get(name, {}).get('predicted_age_corrected') for name in weights}
    if None in ages.values():
        return None
    return sum(weights[name] * age for name, age in ages.items() if age is not None)
