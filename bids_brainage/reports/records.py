"""Gather what the output dataset holds about one participant.

Only files are read: prediction tables with their side files, figures, session summary, methods
text, status tables and crash texts.  Nothing is computed that is not in them, and a missing
file only leaves its part of the page empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainage.bundles.validation import leading_validation
from bids_brainage.errors import BrainAgeError
from bids_brainage.names import (
    CONSENSUS,
    model_label,
    parse_name,
    source_entities,
    source_stem,
)
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.tables import data_dictionary, read_brainage
from bids_brainage.reports.run_logs import read_settings, status_messages
from bids_brainage.reports.volumes import Volumes, read_volumes
from bids_brainage.tsv import read_tsv

_CRASH_CHARACTERS = 12_000
_MATRIX = 'sub-*_stat-pearsoncorrelation_relmat.json'


@dataclass(frozen=True)
class Result:
    """What one model said about one scan; ages and limits in years, None where absent."""

    model: str
    version: str | None
    predicted: float | None
    sd: float | None
    low: float | None
    high: float | None
    level: float | None
    gap: float | None
    corrected: float | None
    in_range: bool | None
    flags: tuple[str, ...]
    status: str
    facts: Mapping[str, Any]
    contributions: Mapping[str, float]
    base_age: float | None = None
    reference_age: float | None = None

    @property
    def ok(self) -> bool:
        """True if there is a predicted age."""
        return self.status == 'ok' and self.predicted is not None


@dataclass(frozen=True)
class Picture:
    """One figure file; `what` is its ``desc`` label, `model` the label of ``model-``."""

    path: Path
    what: str
    model: str | None
    note: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanRecord:
    """One image with all its results, pictures and messages.

    `quality` and `flags` are those of a functional run whose connectivity was measured;
    `volumes` those of a T1w image.
    """

    stem: str
    source: str
    modality: str
    session: str | None
    age: float | None
    age_source: str | None
    censored: bool
    sex: str | None
    table: str
    results: tuple[Result, ...]
    pictures: tuple[Picture, ...]
    messages: tuple[str, ...]
    side: Mapping[str, Any]
    quality: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    volumes: Volumes | None = None

    @property
    def measured(self) -> bool:
        """True for a functional run whose connectivity was measured."""
        return bool(self.quality)

    @property
    def failed(self) -> bool:
        """True if no model gave an age and no connectivity was measured."""
        return not self.measured and not any(result.ok for result in self.results)

    @property
    def title(self) -> str:
        """Name a person would use: session and other labels in words."""
        words = {'ses': 'Session', 'run': 'Run', 'task': 'Task', 'acq': 'Acquisition'}
        words |= {'rec': 'Reconstruction', 'ce': 'Contrast', 'echo': 'Echo'}
        entities = source_entities(self.stem)
        named = [f'{words.get(k, k)} {v}' for k, v in entities.items() if k != 'sub']
        kinds = {'bold': 'resting or task fMRI', 'table': 'tables of another program'}
        kind = kinds.get(self.modality, self.modality)
        return ' · '.join([*named, kind])


@dataclass(frozen=True)
class Crash:
    """Text of one crash file."""

    name: str
    session: str | None
    text: str


@dataclass(frozen=True)
class ParticipantRecord:
    """Everything about one participant, scans in the order of sessions."""

    subject: str
    scans: tuple[ScanRecord, ...]
    sessions: tuple[Mapping[str, str], ...]
    crashes: tuple[Crash, ...]
    methods: str
    description: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


def load_participant(output_dir: Path, subject: str) -> ParticipantRecord:
    """Read all derivatives of one participant.

    Parameters
    ----------
    output_dir : Path
        Output dataset.
    subject : str
        Label without ``sub-``.

    Returns
    -------
    ParticipantRecord
        Without scans if nothing was written yet.

    Raises
    ------
    bids_brainage.errors.ReadWriteError
        If a prediction table is damaged.
    """
    folder = output_dir / f'sub-{subject}'
    summary = folder / f'sub-{subject}_sessions.tsv'
    sessions = read_tsv(summary) if summary.is_file() else []
    messages = status_messages(output_dir, subject)
    scans = [
        _scan(output_dir, path, messages)
        for pattern in ('*', 'ses-*/*')
        for path in folder.glob(f'{pattern}/sub-{subject}_*brainage.tsv')
    ]
    stems = {scan.stem for scan in scans}
    runs = [
        _run(output_dir, path, messages)
        for pattern in ('func', 'ses-*/func')
        for path in sorted(folder.glob(f'{pattern}/{_MATRIX}'))
    ]
    scans += {run.stem: run for run in runs if run.stem not in stems}.values()
    listed = {scan.source for scan in scans}
    scans += [_lost(source, texts) for source, texts in messages.items() if source not in listed]
    order = [row.get('session_id', '') for row in sessions]
    scans.sort(key=lambda scan: _position(scan, order))
    methods = output_dir / 'logs' / 'CITATION.md'
    return ParticipantRecord(
        subject,
        tuple(scans),
        tuple(sessions),
        tuple(_crashes(folder)),
        methods.read_text(encoding='utf-8') if methods.is_file() else '',
        read_json(output_dir / 'dataset_description.json'),
        read_settings(folder),
    )


def _position(scan: ScanRecord, order: list[str]) -> tuple[bool, float, str]:
    """Sort by the session summary's order, unknown sessions last, then by name."""
    label = f'ses-{scan.session}'
    known = label in order
    return (not known and scan.session is not None, order.index(label) if known else 0, scan.stem)


def _scan(output_dir: Path, path: Path, messages: Mapping[str, tuple[str, ...]]) -> ScanRecord:
    """Read one prediction table with its side file and figures."""
    stem = source_stem(path)
    rows = read_brainage(path)
    side = read_json(path.with_suffix('.json'))
    first = rows[0] if rows else {}
    source = str(first.get('source') or stem)
    entities = source_entities(stem)
    return ScanRecord(
        stem=stem,
        source=source,
        modality=str(first.get('modality') or ('bold' if 'task' in entities else 'T1w')),
        session=entities.get('ses'),
        age=first.get('age'),
        age_source=first.get('age_source'),
        censored=bool(first.get('age_censored')),
        sex=first.get('sex'),
        table=path.relative_to(output_dir).as_posix(),
        results=tuple(_result(row, side) for row in rows),
        pictures=tuple(_pictures(output_dir, path, stem)),
        messages=messages.get(source, ()),
        side=side,
        volumes=read_volumes(path.with_name(f'{stem}_volumes.tsv')),
    )


def _run(output_dir: Path, path: Path, messages: Mapping[str, tuple[str, ...]]) -> ScanRecord:
    """Make a record of a functional run from the side file of its connectivity."""
    side = read_json(path)
    stem = source_stem(path)
    sources = side.get('Sources') or [stem]
    folder = path.parent.relative_to(output_dir).as_posix()
    source = f'bids:raw:{folder}/{stem}_bold.nii.gz'
    return ScanRecord(
        stem=stem,
        source=str(sources[0]),
        modality='bold',
        session=source_entities(stem).get('ses'),
        age=None,
        age_source=None,
        censored=False,
        sex=None,
        table='',
        results=(),
        pictures=tuple(_pictures(output_dir, path, stem)),
        messages=messages.get(source, ()),
        side=side,
        quality=side.get('Quality') or {},
        flags=tuple(side.get('QualityFlags') or ()),
    )


def _lost(source: str, messages: tuple[str, ...]) -> ScanRecord:
    """Make a record for a scan that failed before any table was written."""
    name = parse_name(source)
    return ScanRecord(
        stem=source_stem(source),
        source=source,
        modality=name['suffix'],
        session=name.get('ses'),
        age=None,
        age_source=None,
        censored=False,
        sex=None,
        table='',
        results=(),
        pictures=(),
        messages=messages,
        side={},
    )


def _result(row: Mapping[str, Any], side: Mapping[str, Any]) -> Result:
    """Turn one table row and its model's facts into a result."""
    model = str(row['model'])
    own = {key: value for key, value in side.items() if key not in data_dictionary('brainage')}
    own.pop('Models', None)
    facts = {**own, **(side.get('Models') or {}).get(model, {})}
    shares = facts.pop('Contributions', None) or {}
    base_age, reference_age = facts.pop('BaseAge', None), facts.pop('ReferenceAge', None)
    if isinstance(shares.get(model), Mapping):
        shares = shares[model]
    return Result(
        model=model,
        version=row['model_version'],
        predicted=row['predicted_age'],
        sd=row['predicted_age_sd'],
        low=row['interval_low'],
        high=row['interval_high'],
        level=row['interval_level'],
        gap=row['brain_age_gap'],
        corrected=row['predicted_age_corrected'],
        in_range=row['in_training_range'],
        flags=tuple(part.strip() for part in (row['qc_flag'] or '').split(';') if part.strip()),
        status=str(row['status'] or 'ok'),
        facts=facts,
        contributions={
            str(region): float(years)
            for region, years in shares.items()
            if isinstance(years, int | float)
        },
        base_age=base_age,
        reference_age=reference_age,
    )


def _pictures(output_dir: Path, table: Path, stem: str) -> list[Picture]:
    """Find the figures of one scan and the side files of its saliency maps."""
    source = source_entities(stem)
    folder = output_dir / f'sub-{source["sub"]}' / 'figures'
    notes = _saliency_notes(table.parent, stem)
    found: list[Picture] = []
    for path in sorted(folder.glob(f'{stem}_*.svg')):
        try:
            entities = parse_name(path.name)
        except BrainAgeError:
            continue
        what, model = entities.pop('desc', ''), entities.pop('model', None)
        for key in ('suffix', 'extension', 'datatype', 'space'):
            entities.pop(key, None)
        if entities == source and what:
            found.append(Picture(path, what, model, notes.get((model, what), {})))
    order = (
        *('mask', 'registration', 'segmentation', 'regions'),
        *('coregistration', 'carpet', 'connectivity'),
    )
    rank = {name: index for index, name in enumerate(order)}
    return sorted(found, key=lambda p: (p.model is not None, rank.get(p.what, 9), str(p.path)))


def _saliency_notes(folder: Path, stem: str) -> dict[tuple[str | None, str], Mapping[str, Any]]:
    """Read the side files of the saliency maps, by model label and method."""
    notes: dict[tuple[str | None, str], Mapping[str, Any]] = {}
    for path in sorted(folder.glob(f'{stem}_*_saliency.json')):
        entities = parse_name(path.name)
        notes[entities.get('model'), entities.get('desc', '')] = read_json(path)
    return notes


def _crashes(folder: Path) -> list[Crash]:
    """Read the crash texts of the last run of the participant and of each session."""
    crashes: list[Crash] = []
    for place in [folder, *sorted(folder.glob('ses-*'))]:
        runs = sorted(path for path in place.glob('log/*') if path.is_dir())
        session = place.name.removeprefix('ses-') if place != folder else None
        for path in sorted(runs[-1].glob('crash-*.txt')) if runs else ():
            text = path.read_text(encoding='utf-8', errors='replace')
            if len(text) > _CRASH_CHARACTERS:
                text = '[…]\n' + text[-_CRASH_CHARACTERS:]
            crashes.append(Crash(path.relative_to(folder.parent).as_posix(), session, text))
    return crashes


def validated_error(result: Result) -> tuple[bool, float]:
    """Say whether a model was measured on simulated scans only, and its error there, years.

    Infinite without one.
    """
    facts = result.facts
    simulated = bool(facts.get('TrainingSimulated'))
    validation = leading_validation(facts.get('Validation'), simulated)
    return (validation.simulated, validation.mae) if validation else (True, float('inf'))


def headline_model(scans: tuple[ScanRecord, ...], modality: str) -> str | None:
    """Choose one model for the first block of all scans of a modality.

    The model that gave an age for most scans; of several, the consensus, which only runs when it
    is asked for; else one measured on real scans; of those, the one with the smallest error;
    then by name.
    """
    ranks: dict[str, tuple[int, bool, bool, float, str]] = {}
    for scan in scans:
        for result in scan.results if scan.modality == modality else ():
            count = ranks.get(result.model, (0,))[0] - int(result.ok)
            single = result.model != CONSENSUS
            ranks[result.model] = (count, single, *validated_error(result), result.model)
    return min(ranks, key=lambda model: ranks[model], default=None)


def headline_result(scan: ScanRecord, model: str | None) -> Result | None:
    """Give the scan's result of that model, else its first one with an age, else any."""
    own = [result for result in scan.results if result.model == model]
    usable = [result for result in scan.results if result.ok]
    return next(iter([*own, *usable, *scan.results]), None)


def picture_model(picture: Picture, scan: ScanRecord) -> str | None:
    """Give the registry name that belongs to a figure's ``model-`` label."""
    names = {model_label(result.model): result.model for result in scan.results}
    return names.get(picture.model or '', picture.model)
