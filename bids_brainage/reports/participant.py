"""Build the HTML page of a participant from the derivatives on disk.

The page is one file: style, charts and pictures are inside it, it runs no script and asks for
nothing from the network, and the same derivatives give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_brainage.errors import BrainAgeError, MissingInputError
from bids_brainage.names import model_label, report_path
from bids_brainage.outputs.files import locked, write_text
from bids_brainage.pictures import svg
from bids_brainage.reports import charts, markdown, volumes, wording
from bids_brainage.reports.captions import caption, summary_caption
from bids_brainage.reports.contributions import contribution_views
from bids_brainage.reports.facts import about_rows, model_cards, notes, quality_rows
from bids_brainage.reports.page import fill_template
from bids_brainage.reports.records import (
    ParticipantRecord,
    Result,
    ScanRecord,
    headline_model,
    headline_result,
    load_participant,
    picture_model,
)
from bids_brainage.tsv import is_missing

_LAYERS = {'coregistration': ('T1w', 'BOLD')}
"""What a picture shows in turn, where it is not template and scan."""
SUMMARY = 'summary'
"""Label of the picture of the first page."""


def build_participant_report(
    output_dir: Path, subject: str, *, aggregate_sessions: int = 4
) -> list[Path]:
    """Write ``sub-X.html`` and, for many sessions, one page per session.

    One job at a time reads and writes, so that of jobs for one session each the last shows all.

    Parameters
    ----------
    output_dir : Path
        Output dataset; only its files are read.
    subject : str
        Label with or without ``sub-``.
    aggregate_sessions : int
        Up to this many sessions stand in one page.  Beyond, each session gets
        ``sub-X_ses-Y.html`` and ``sub-X.html`` keeps the results of all, the trend, and links.

    Returns
    -------
    list of Path
        The pages, the overview first.

    Raises
    ------
    MissingInputError
        If nothing is known about the participant in `output_dir`.
    """
    subject = subject.removeprefix('sub-')
    with locked(output_dir):
        record = load_participant(Path(output_dir), subject)
        if not record.scans and not record.crashes:
            raise MissingInputError(
                f'No report for sub-{subject}: expected prediction tables (*_brainage.tsv) or '
                f'crash texts in {Path(output_dir) / f"sub-{subject}"}, found none. Run the '
                'participant level first.'
            )
        sessions = list(dict.fromkeys(scan.session for scan in record.scans if scan.session))
        split = len(sessions) > aggregate_sessions
        written = [_write_page(Path(output_dir), record, sessions if split else [], None)]
        if split:
            written += [_write_page(Path(output_dir), record, sessions, name) for name in sessions]
    return written


def _write_page(
    output_dir: Path, record: ParticipantRecord, pages: Sequence[str], session: str | None
) -> Path:
    """Render and write one page; `pages` are the sessions that have a page of their own."""
    path = output_dir / report_path(record.subject, session)
    write_text(path, render_page(record, pages, session))
    return path


def render_page(record: ParticipantRecord, pages: Sequence[str], session: str | None) -> str:
    """Render one page as HTML.

    Parameters
    ----------
    record : ParticipantRecord
    pages : sequence of str
        Sessions that have a page of their own; empty when all stand in one page.
    session : str or None
        The session of this page; None for the page of the participant.

    Returns
    -------
    str
    """
    shown = [scan for scan in record.scans if session is None or scan.session == session]
    detailed = [scan for scan in shown if session is not None or scan.session not in pages]
    views = _scan_views(record, shown, detailed)
    crashes = [crash for crash in record.crashes if session in (None, crash.session)]
    return fill_template(
        'participant',
        record=record,
        session=session,
        views=views,
        details=[view for view in views if view['detailed']],
        links=[(name, report_path(record.subject, name).as_posix()) for name in pages],
        home=report_path(record.subject).as_posix(),
        sex=next((scan.sex for scan in shown if scan.sex), None),
        ages=_ages(shown),
        trends=_trends(record),
        models=model_cards(shown),
        methods=markdown.to_html(record.methods, top=2),
        about=about_rows(record),
        crashes=crashes,
        failed=[scan for scan in shown if scan.failed or scan.messages],
    )


def _ages(scans: Sequence[ScanRecord]) -> str:
    """List the different ages of the scans shown."""
    told = [scan for scan in scans if scan.table] or scans
    known = list(dict.fromkeys(wording.age_text(scan) for scan in told))
    return ', '.join(known) or wording.MISSING


def _scan_views(
    record: ParticipantRecord, shown: Sequence[ScanRecord], detailed: Sequence[ScanRecord]
) -> list[dict[str, Any]]:
    """Prepare what the template needs for each scan; all strips share one axis."""
    usable = [result for scan in shown for result in scan.results if result.ok]
    axis = charts.age_axis(map(_estimate, usable), [scan.age for scan in shown])
    views: list[dict[str, Any]] = []
    for number, scan in enumerate(shown, start=1):
        main = headline_result(scan, headline_model(record.scans, scan.modality))
        flags = wording.describe_flags(main) if main else wording.describe(scan.flags)
        results = sorted(scan.results, key=lambda result: result is not main)
        strip = [_estimate(result) for result in results if result.ok]
        span = wording.training_range(main)
        views.append(
            {
                'id': f'scan-{number}',
                'scan': scan,
                'main': main,
                'flags': flags,
                'worst': flags[0].severity if flags else None,
                'strip': charts.age_strip(axis, strip, scan.age, span) if axis else '',
                'range': span,
                'detailed': scan in detailed,
                'contributions': contribution_views(scan) if scan in detailed else [],
                'pictures': _picture_views(scan) if scan in detailed else [],
                **_volume_view(record, scan),
                **_summary(scan, main),
                'quality': quality_rows(scan),
            }
        )
    return views


def _volume_view(record: ParticipantRecord, scan: ScanRecord) -> dict[str, Any]:
    """Prepare table and charts of the volumes of one scan among those of other people."""
    if scan.volumes is None:
        return {'volumes': None, 'curves': [], 'others': False}
    points = [
        volumes.Point(other.age, other.volumes, other is scan)
        for other in record.scans
        if other.volumes is not None and other.age is not None
    ]
    return {
        'volumes': {
            'rows': volumes.table_rows(scan.volumes, volumes.SHOWN),
            'all': volumes.table_rows(scan.volumes),
            'reason': scan.volumes.reason,
        },
        'curves': volumes.curve_charts(points, scan.sex),
        'others': len(points) > 1,
        'compared_with': volumes.compared_with(),
    }


def _summary(scan: ScanRecord, main: Result | None) -> dict[str, Any]:
    """Prepare the picture of the most telling slices, with the map of the main model if any."""
    found = {picture_model(p, scan): p for p in scan.pictures if p.what == SUMMARY}
    chosen = found.get(main.model if main else None) or found.get(None)
    markup = ''
    if chosen is not None:
        try:
            markup = svg.sanitise(chosen.path.read_text(encoding='utf-8'), chosen.path.name)
        except (BrainAgeError, OSError, UnicodeDecodeError):
            chosen = None  # the pictures below say what is wrong with them
    shown = chosen is not None and chosen.model is not None
    return {
        'summary': markup,
        'summary_text': summary_caption(bool(main and main.contributions)) if shown else '',
    }


def _estimate(result: Result) -> charts.Estimate:
    """Give a result as an entry of a chart, drawn as doubtful if a flag says not to use it."""
    predicted = result.predicted if result.predicted is not None else float('nan')
    doubtful = any(flag.severity == 'stop' for flag in wording.describe_flags(result))
    return charts.Estimate(result.model, predicted, result.low, result.high, doubtful)


def _picture_views(scan: ScanRecord) -> list[dict[str, Any]]:
    """Prepare the pictures: title, caption and safe markup, or why one cannot be shown."""
    views: list[dict[str, Any]] = []
    for picture in scan.pictures:
        if picture.what == SUMMARY:
            continue
        title, words = caption(picture, scan)
        try:
            markup = svg.sanitise(picture.path.read_text(encoding='utf-8'), picture.path.name)
            problem = ''
        except (BrainAgeError, OSError, UnicodeDecodeError) as error:
            markup, problem = '', str(error)
        views.append(
            {
                'title': title,
                'caption': words,
                'markup': markup,
                'problem': problem,
                'flicker': 'bba-scan' in markup,
                'layers': _LAYERS.get(picture.what, ('template', 'this scan')),
                'notes': notes(picture),
            }
        )
    return views


def _trends(record: ParticipantRecord) -> list[dict[str, Any]]:
    """Draw one chart per model that has ages in several sessions, all with one axis.

    The model of the first block comes first.
    """
    order = list(dict.fromkeys(scan.session for scan in record.scans if scan.session))
    names = dict.fromkeys(r.model for scan in record.scans for r in scan.results if r.ok)
    visits = {model: [_visit(record, session, model) for session in order] for model in names}
    visits = {
        model: points
        for model, points in visits.items()
        if sum(visit.mean is not None for visit in points) > 1
    }
    every = [visit for points in visits.values() for visit in points]
    axis = charts.age_axis((e for v in every for e in v.estimates), [v.age for v in every])
    if axis is None:
        return []
    main = headline_model(record.scans, 'T1w')
    return [
        {
            'model': model,
            'chart': charts.trend_chart(axis, visits[model], height=150),
            'rows': _session_table(record, model),
        }
        for model in sorted(visits, key=lambda model: model != main)
    ]


def _visit(record: ParticipantRecord, session: str, model: str) -> charts.Visit:
    """Collect the predictions of one model in one session."""
    scans = [scan for scan in record.scans if scan.session == session]
    estimates = tuple(
        _estimate(result)
        for scan in scans
        for result in scan.results
        if result.model == model and result.ok
    )
    age = next((scan.age for scan in scans if scan.age is not None), None)
    return charts.Visit(f'ses-{session}', age, estimates)


def _session_table(record: ParticipantRecord, model: str) -> list[tuple[str, ...]]:
    """Pick a model's columns from the session summary: label, images, age, SD, gap, change."""
    label = model_label(model)

    def number(row: Mapping[str, str], column: str, signed: bool = False) -> str:
        text = row.get(f'{label}_{column}')
        value = None if text is None or is_missing(text) else float(text)
        return wording.years(value, signed=signed, unit=False)

    return [
        (
            row.get('session_id', wording.MISSING),
            row.get('n_images', wording.MISSING),
            number(row, 'predicted_age'),
            number(row, 'within_sd'),
            number(row, 'brain_age_gap', True),
            number(row, 'change', True),
        )
        for row in record.sessions
    ]
