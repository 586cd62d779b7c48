"""The participant level: from a BIDS dataset to brain ages, maps and reports."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.outputs import (
    Container,
    StatusLog,
    check_output,
    config_hash,
    write_dataset_files,
    write_sessions_summary,
)
from bids_brainage.outputs.citation import append_methods
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.claim import claimed
from bids_brainage.runs.environment import check_device
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import (
    Plan,
    again_words,
    images_needed,
    make_plan,
    names_of_combined,
    people_missing,
    resolve_models,
    select_all,
    show_plan,
    show_reports,
    tell_headers,
)
from bids_brainage.runs.progress import summary_table
from bids_brainage.runs.rows import refresh_rows, rows_of
from bids_brainage.runs.series import series_asked_for
from bids_brainage.runs.settle import settle
from bids_brainage.runs.work import clean_work, remove_half_written, remove_idle
from bids_brainage.workflows.images import kept_images
from bids_brainage.workflows.plugin import require_scheduler

if TYPE_CHECKING:
    from bids_brainage.workflows.spaces import OutputSpace

LOG = logging.getLogger('bids_brainage')


def run_participant(config: Config) -> int:
    """Run the participant level.

    Parameters
    ----------
    config : Config

    Returns
    -------
    int
        0 if every scan has an age from every model, 1 if some failed, 65 if all did.

    Raises
    ------
    BrainAgeError
        If the run cannot start: nothing selected, models, templates or programs missing, or
        another run has a scan in its hands.
    """
    execution = config.execution
    digest = config_hash(config.workflow.image_options())
    scans, series, measured = select_all(config)
    check_device(config)
    if execution.reports_only:
        return _only_reports(config, (*scans, *measured))
    programs = {scan.program for scan in measured}
    bundles = resolve_models(config, programs, images=bool(scans))
    series = series_asked_for(config, series, bundles)
    scans = scans if images_needed(bundles, series) else ()
    check_output(execution.output_dir, digest)
    ledger = Ledger(config, series, remember=not execution.dry_run)
    plan = make_plan(config, scans, series, bundles, ledger, measured)
    tell_headers(plan)
    if execution.dry_run:
        return show_plan(plan)
    if execution.boilerplate_only:
        from bids_brainage.runs.boilerplate import write_boilerplate

        return write_boilerplate(config, plan, ledger)
    require_scheduler(config.nipype.plugin)
    spaces: Sequence[OutputSpace] = ()
    if config.workflow.output_spaces:
        from bids_brainage.runs.spaces import find_spaces

        spaces = find_spaces(config)
    with claimed(execution.work_dir, (scan.path.name for scan in plan.busy)):
        if execution.clean_workdir:
            clean_work(execution.work_dir, plan)
        remove_half_written(config, plan)
        status = _run(config, plan, ledger, spaces)
    if not execution.keep_work:
        remove_idle(config, plan)
    return status


def _only_reports(config: Config, scans: Sequence[Scan]) -> int:
    """Bring rows and pages up to date, or say which pages that would be; return the status."""
    if config.execution.dry_run:
        return show_reports(scans)
    _refresh(config, scans)
    return _write_reports(config, scans)


def _refresh(config: Config, scans: Sequence[Scan]) -> None:
    """Bring the rows up to date, and say which explanations are not."""
    for scan in scans:
        for model in refresh_rows(config.execution.output_dir, scan):
            LOG.warning(
                '%s: the age was corrected; the explanation of %s still compares with people of '
                'another age. Run without --reports-only to make it anew.',
                scan.stem,
                model,
            )


def _run(config: Config, plan: Plan, ledger: Ledger, spaces: Sequence[OutputSpace] = ()) -> int:
    """Do what is planned, and tell failures and results."""
    execution = config.execution
    _announce(config, plan)
    _write_root(config)
    for scan in plan.all_scans:
        refresh_rows(execution.output_dir, scan)
    status = StatusLog(execution.output_dir, execution.run_id)
    combiner = None
    if names_of_combined(config, plan.all_bundles):
        from bids_brainage.runs.combine import Combiner

        combiner = Combiner(config, plan.all_bundles, plan.elsewhere.scans)
    failures, lost, unwritten, without, ended, crashed = 0, 0, 0, 0, False, ''
    try:
        if plan.elsewhere.scans:
            from bids_brainage.runs.measure import predict_tables

            without = predict_tables(config, plan, ledger, status)
        if plan.todo or plan.series_todo:
            from bids_brainage.runs.process import process

            crashed = process(config, plan, ledger, status, combiner)
        if spaces and not crashed:
            from bids_brainage.runs.process import execute
            from bids_brainage.runs.spaces import write_spaces

            unwritten = write_spaces(config, plan.scans, spaces, status, partial(execute, config))
        if plan.elsewhere.scans:
            from bids_brainage.runs.measure import methods_of

            append_methods(execution.output_dir, methods_of(plan))
        ended = True
    finally:
        if ended:  # a run that was stopped has scans that are neither done nor failed
            failures, lost = settle(plan, ledger, status, crashed)
            failures += without
            if combiner is not None:
                combiner.write_all(plan.all_scans)
        report_errors = _write_reports(config, plan.all_scans, ended)
    return _finish(config, plan, failures, lost + unwritten + report_errors, status)


def _announce(config: Config, plan: Plan) -> None:
    people = len({scan.subject for scan in plan.scans})
    tables = plan.elsewhere
    LOG.log(IMPORTANT, 'bids_brainage %s', config.environment.version)
    LOG.log(IMPORTANT, 'dataset   %s', config.execution.bids_dir)
    LOG.log(IMPORTANT, 'output    %s', config.execution.output_dir)
    LOG.log(
        IMPORTANT,
        'scans     %d T1w images of %d participants, %d to do',
        len(plan.scans),
        people,
        len(plan.todo),
    )
    if tables.scans:
        LOG.log(IMPORTANT, 'tables    %d visits, %d to do', len(tables.scans), len(tables.todo))
    for words in again_words(plan):
        LOG.log(IMPORTANT, 'scans     %s', words)
    if plan.series:
        LOG.log(IMPORTANT, 'series    %d BOLD, %d to do', len(plan.series), len(plan.series_todo))
    for bundle in plan.all_bundles:
        LOG.log(
            IMPORTANT,
            'model     %s, version %s, weights %s',
            bundle.name,
            bundle.version,
            bundle.weights_sha256[:12],
        )
        if bundle.status != 'trained':
            LOG.warning('%s is untrained: its ages mean nothing.', bundle.name)
    LOG.log(
        IMPORTANT,
        'resources %d processes x %d threads, %.1f GB, device %s, seed %d',
        config.nipype.nprocs,
        config.nipype.omp_nthreads,
        config.nipype.memory_gb,
        config.nipype.device,
        config.seeds.random_seed,
    )


def _write_root(config: Config) -> None:
    environment = config.environment
    container = None
    if environment.container_type and environment.container_tag:
        container = Container(environment.container_type, environment.container_tag)
    write_dataset_files(
        config.execution.output_dir,
        config.execution.bids_dir,
        config_hash(config.workflow.image_options()),
        derivatives=config.execution.derivatives,
        container=container,
    )


def _write_reports(config: Config, scans: Sequence[Scan], ended: bool = True) -> int:
    """Write tables of volumes, session summaries and pages; return how many failed.

    In a run that was stopped (`ended` false) people without a result get none.
    """
    from bids_brainage.reports.index import write_index
    from bids_brainage.reports.participant import build_participant_report
    from bids_brainage.runs.volumes import write_volumes

    failed, images = 0, 'regions' in kept_images(config)
    for subject in dict.fromkeys(scan.subject for scan in scans):
        own = config.execution.output_dir / f'sub-{subject}'
        if not ended and not any(own.rglob('*_brainage.tsv')):
            continue
        try:
            for scan in scans:
                if scan.subject == subject:
                    write_volumes(config.execution.output_dir, scan, images=images)
            write_sessions_summary(config.execution.output_dir, subject)
            build_participant_report(
                config.execution.output_dir,
                subject,
                aggregate_sessions=config.execution.aggregate_session_reports,
            )
        except Exception as error:  # a page must not take the results of others along
            failed += 1
            LOG.error('sub-%s: the report could not be written: %s', subject, error)
    try:
        write_index(config.execution.output_dir)
    except Exception as error:
        failed += 1
        LOG.error('index.html could not be written: %s', error)
    return failed


def _finish(
    config: Config, plan: Plan, failures: int, report_errors: int, status: StatusLog
) -> int:
    names = [b.name for b in plan.all_bundles] + names_of_combined(config, plan.all_bundles)
    rows = rows_of(config.execution.output_dir, plan.all_scans, names)
    status.write()
    sys.stdout.write('\n' + summary_table(rows) + '\n\n')
    total = plan.n_ages
    skipped = sum(scan.uri not in plan.cbv.problems for scan, _ in plan.without)
    LOG.log(
        IMPORTANT,
        '%d ages, %d failed, %d were there already',
        total - failures - skipped,
        failures,
        total
        - sum(len(b) for _, b in (*plan.todo, *plan.elsewhere.todo))
        - len(plan.unreadable) * len(plan.bundles)
        - len(plan.without),
    )
    if skipped:
        LOG.warning('%d ages skipped for want of a blood-volume map', skipped)
    for subject in dict.fromkeys(scan.subject for scan in plan.all_scans):
        page = config.execution.output_dir / f'sub-{subject}.html'
        if page.exists():
            LOG.log(IMPORTANT, 'report    %s', page)
    LOG.log(IMPORTANT, 'citation  %s', config.execution.output_dir / 'logs' / 'CITATION.md')
    missing = people_missing(config, plan.all_scans)
    for label in missing:
        LOG.error('sub-%s was asked for and has nothing to use', label)
    if failures == total:
        return 65
    return 1 if failures or report_errors or missing else 0
