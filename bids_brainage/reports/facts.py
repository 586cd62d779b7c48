"""What stands on a page about the models, the run and the checks, ready for the template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bids_brainage.preprocessing.quality import checked_measures, flag_table
from bids_brainage.reports import wording
from bids_brainage.reports.records import ParticipantRecord, Picture, Result, ScanRecord

_MODEL_KEYS = (
    *('ModelName', 'ModelVersion', 'WeightsSHA256', 'TrainingPopulation', 'TrainingAgeRange'),
    *('Validation', 'License', 'Reference', 'Limitations'),
)


def model_cards(scans: Sequence[ScanRecord]) -> list[dict[str, Any]]:
    """Prepare one card per model: what it was trained and measured on, and its limits."""
    first: dict[str, Result] = {}
    for scan in scans:
        for result in scan.results:
            if result.ok or 'ModelName' in result.facts:  # a failed scan tells nothing of it
                first.setdefault(result.model, result)
    cards: list[dict[str, Any]] = []
    for name, result in sorted(first.items()):
        facts = result.facts
        checks = facts.get('Validation')
        limits = facts.get('Limitations') or []
        shared = {'Sources', *_MODEL_KEYS}
        cards.append(
            {
                'name': str(facts.get('ModelName') or name),
                'registry': name,
                'version': wording.plain(facts.get('ModelVersion') or result.version),
                'population': wording.plain(facts.get('TrainingPopulation')),
                'range': wording.training_range(result),
                'checks': [c for c in checks if isinstance(c, Mapping)]
                if isinstance(checks, list)
                else [],
                'limits': [limits] if isinstance(limits, str) else [str(t) for t in limits],
                'license': wording.plain(facts.get('License')),
                'reference': wording.doi_link(facts.get('Reference')),
                'hash': wording.plain(facts.get('WeightsSHA256')),
                'more': [(k, wording.plain(v)) for k, v in facts.items() if k not in shared],
            }
        )
    return cards


def notes(picture: Picture) -> list[tuple[str, str]]:
    """List what the side file of a map says about it."""
    hidden = ('Contributions', 'Sources', 'SpatialReference', 'Resolution')
    return [(k, wording.plain(v)) for k, v in picture.note.items() if k not in hidden]


def quality_rows(scan: ScanRecord) -> list[dict[str, Any]]:
    """Prepare the measures of a T1w image that are checked, each with its range in words."""
    measures = scan.side.get('Quality')
    rows = []
    for found in checked_measures(measures if isinstance(measures, Mapping) else {}):
        if found['unit'] == 'true or false':
            continue  # there is no range; the flag itself says what was found
        low, high = (None if x is None else f'{x:g}' for x in (found['low'], found['high']))
        span = (
            f'{low} to {high}' if low and high else f'at least {low}' if low else f'at most {high}'
        )
        unit = found['unit']
        rows.append({
            'measure': flag_table()[found['flag']]['measured'],
            'value': f'{found["value"]:.3g}' if found['value'] < 100 else f'{found["value"]:.0f}',
            'range': span,
            'unit': '' if unit in ('none', 'ratio', 'unit of the image') else unit,
            'fails': found['fails'],
            'flag': flag_table()[found['flag']]['label'],
        })  # fmt: skip
    return rows


def about_rows(record: ParticipantRecord) -> list[tuple[str, str]]:
    """List dataset, date, command, version and container of the last run on the participant."""
    settings = record.settings
    environment, execution = settings.get('environment', {}), settings.get('execution', {})
    rows = [
        ('Dataset', execution.get('bids_dir')),
        ('Date', _date(str(execution.get('run_id') or ''))),
        ('Command', environment.get('command')),
        ('Python, system', _joined(environment, 'python', 'platform')),
        ('Container', _joined(environment, 'container_type', 'container_tag')),
    ]
    told = [(name, str(value)) for name, value in rows if value]
    return [*_software(record), *told]


def _joined(section: Mapping[str, Any], *keys: str) -> str:
    return ', '.join(str(section[key]) for key in keys if section.get(key))


def _date(run_id: str) -> str:
    """Return when a run started, from its identifier; empty if it holds no date."""
    found = re.match(r'\d{8}-\d{6}', run_id)
    if not found:
        return ''
    return f'{datetime.strptime(found[0], "%Y%m%d-%H%M%S"):%Y-%m-%d %H:%M} UTC'


def _software(record: ParticipantRecord) -> list[tuple[str, str]]:
    """List the programs that made the output dataset."""
    entries = record.description.get('GeneratedBy') or []
    rows: list[tuple[str, str]] = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            rest = {k: v for k, v in entry.items() if k not in ('Name', 'Version')}
            name = f'{wording.plain(entry.get("Name"))} {wording.plain(entry.get("Version"))}'
            rows.append((name, wording.plain(rest)))
    return rows
