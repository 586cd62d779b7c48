"""The participant level: from a BIDS dataset to brain ages, maps and reports."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.cli.bundles import DEFAULT_MODELS, model_dirs
from bids_brainage.cli.progress import IMPORTANT, Progress, summary_table
from bids_brainage.config import Config
from bids_brainage.dataset import find_scans
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import BundleError, MissingInputError, OptionError
from bids_brainage.models.bundle import Bundle, resolve_bundle
from bids_brainage.outputs import (
    Container,
    StatusLog,
    check_output,
    config_hash,
    write_citations,
    write_dataset_files,
    write_sessions_summary,
)
from bids_brainage.outputs.provenance import software_versions

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow

LOG = logging.getLogger('bids_brainage')
PACKAGES = (
    'bids_brainage', 'numpy', 'scipy', 'torch', 'nipype', 'SimpleITK', 'picsl_greedy', 'deepbet',
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes
    ----------
    scans : tuple of Scan
        Everything selected.
    bundles : tuple of Bundle
    todo : tuple of (Scan, bundles)
        What has no result yet.
    unreadable : tuple of (Scan, str)
        Scans that cannot be read, with the reason.
    """

    scans: tuple[Scan, ...]
    bundles: tuple[Bundle, ...]
    todo: tuple[tuple[Scan, tuple[Bundle, ...]], ...]
    unreadable: tuple[tuple[Scan, str], ...]


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
        If the run cannot start: nothing selected, models or templates missing.
    """
    from bids_brainage.cli.results import finished, write_failures

    execution = config.execution
    digest = config_hash(config.workflow.image_options())
    scans = _select_scans(config)
    if execution.reports_only:
        return _write_reports(config, scans)
    bundles = _resolve_models(config)
    check_output(execution.output_dir, digest)
    todo, unreadable = [], []
    for scan in scans:
        if scan.problem:
            unreadable.append((scan, scan.problem))
            continue
        left = tuple(
            b for b in bundles if not finished(execution.output_dir, scan, b, digest, config)
        )
        if left:
            todo.append((scan, left))
    plan = Plan(tuple(scans), bundles, tuple(todo), tuple(unreadable))
    if execution.dry_run:
        return _show_plan(plan)
    _announce(config, plan)
    _write_root(config, digest)
    status = StatusLog(execution.output_dir, execution.run_id)
    failures, ended = 0, False
    try:
        crashed = _process(config, plan, digest, status) if plan.todo else ''
        ended = True
    finally:
        if ended:  # a run that was stopped has scans that are neither done nor failed
            failures = write_failures(config, plan, digest, status, crashed)
        report_errors = _write_reports(config, plan.scans)
    return _finish(config, plan, failures, report_errors, status)


def _select_scans(config: Config) -> list[Scan]:
    execution = config.execution
    scans = find_scans(
        execution.bids_dir,
        participant_labels=execution.participant_label or None,
        session_labels=execution.session_label or None,
        task_ids=None,
        filters=execution.bids_filters,
        database_dir=execution.bids_database_dir,
        validate=not execution.skip_bids_validation,
        age_column=config.workflow.age_column,
    )
    found = [scan for scan in scans if scan.suffix == 'T1w']
    if not found:
        raise MissingInputError(
            f'{execution.bids_dir}: no T1w image among what was selected '
            f'({len(scans)} other images). Brain age needs a file like '
            'sub-01/anat/sub-01_T1w.nii.gz; check labels and filters.'
        )
    for scan in found:
        if scan.age.problem:
            LOG.warning('%s: %s', scan.relative, scan.age.problem)
    return found


def _resolve_models(config: Config) -> tuple[Bundle, ...]:
    """Find all bundles, telling all problems together."""
    names = config.workflow.models or DEFAULT_MODELS
    bundles, problems = [], []
    for name in dict.fromkeys(names):
        try:
            bundles.append(resolve_bundle(name, model_dirs(config.workflow.model_dir)))
        except BundleError as error:
            problems.append(str(error))
    if problems:
        raise MissingInputError('\n'.join(problems))
    labels = [bundle.label for bundle in bundles]
    if len(set(labels)) < len(labels):
        raise OptionError(
            f'two models share the label of their file names: {sorted(labels)}. Run them into '
            'different output folders.'
        )
    return tuple(bundles)


def _show_plan(plan: Plan) -> int:
    """Say what would run, and write nothing."""
    lines = [f'{len(plan.scans)} T1w images, {len(plan.todo)} to do:']
    for scan, bundles in plan.todo:
        age = 'age unknown' if scan.age.years is None else f'age {scan.age.years:g}'
        lines.append(f'  {scan.relative}  ({age})  → {", ".join(b.name for b in bundles)}')
    lines += [f'  {scan.relative}  cannot be read: {why}' for scan, why in plan.unreadable]
    done = len(plan.scans) - len(plan.todo) - len(plan.unreadable)
    lines.append(f'{done} have their results already. Nothing was written.')
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0


def _announce(config: Config, plan: Plan) -> None:
    people = len({scan.subject for scan in plan.scans})
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
    for bundle in plan.bundles:
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


def _write_root(config: Config, digest: str) -> None:
    environment = config.environment
    container = None
    if environment.container_type and environment.container_tag:
        container = Container(environment.container_type, environment.container_tag)
    write_dataset_files(
        config.execution.output_dir, config.execution.bids_dir, digest, container=container
    )


def _process(config: Config, plan: Plan, digest: str, status: StatusLog) -> str:
    """Build and run the workflow; return what stopped it before its end, or nothing."""
    from bids_brainage.cli.environment import template_root
    from bids_brainage.outputs.files import write_text
    from bids_brainage.outputs.naming import log_dir

    if config.execution.clean_workdir:
        for folder in config.execution.work_dir.glob('bids_brainage_*_wf'):
            shutil.rmtree(folder)
    root = template_root(config.execution.work_dir)
    from bids_brainage.workflows.participant import (
        init_participant_wf,
        methods_text,
        scan_workflow_name,
    )

    workflow = init_participant_wf(todo=plan.todo, settings=_settings(config, root, digest))
    write_citations(config.execution.output_dir, methods_text(workflow))
    for scan, _ in plan.todo:
        logs = log_dir(config.execution.run_id, scan.subject, scan.session)
        write_text(config.execution.output_dir / logs / 'bids_brainage.toml', config.to_toml())
    if config.execution.write_graph:
        workflow.write_graph(
            dotfilename=str(config.execution.output_dir / 'logs' / 'graph.dot'),
            graph2use='colored',
            simple_form=True,
        )
    names = {scan_workflow_name(scan): scan for scan, _ in plan.todo}
    progress = Progress(
        {name: scan.stem for name, scan in names.items()},
        config.nipype.nprocs,
        lambda name, step, result, seconds: status.add(
            names[name].uri, step, result, seconds=seconds
        ),
    )
    return _execute(config, workflow, progress)


def _settings(config: Config, root: Path, digest: str) -> Any:
    from bids_brainage.preprocessing.template import find_template
    from bids_brainage.workflows.participant import RunSettings

    return RunSettings(
        output_dir=config.execution.output_dir,
        work_dir=config.execution.work_dir,
        run_id=config.execution.run_id,
        registration_template=find_template(root, resolution=2),
        output_template=find_template(root, resolution=1),
        provenance={
            'ConfigurationHash': digest,
            'Options': config.workflow.image_options(),
            'RandomSeed': config.seeds.random_seed,
            'SoftwareVersions': software_versions(PACKAGES),
        },
        saliency=config.workflow.saliency,
        device=config.nipype.device,
        use_gpu=config.nipype.device.startswith('cuda'),
        seed=config.seeds.random_seed,
        omp_nthreads=config.nipype.omp_nthreads,
        sloppy=config.workflow.sloppy,
    )


def _execute(config: Config, workflow: LiterateWorkflow, progress: Progress) -> str:
    arguments = {
        'n_procs': config.nipype.nprocs,
        'memory_gb': config.nipype.memory_gb,
        'raise_insufficient': False,
        'mp_context': 'forkserver',
        'n_gpu_procs': 1,
        **config.nipype.plugin_args,
        'status_callback': progress,
    }
    workflow.config['execution']['stop_on_first_crash'] = config.nipype.stop_on_first_crash
    plugin: Any = config.nipype.plugin
    if plugin == 'MultiProc':
        from bids_brainage.workflows.scheduling import ScanByScan

        plugin = ScanByScan(list(progress.scans), arguments)
    # Nipype collects garbage at every look at its queue; without this it goes through all
    # modules each time and takes a fifth of a core
    gc.collect()
    gc.freeze()
    try:
        workflow.run(plugin=plugin, plugin_args=arguments)
    except KeyboardInterrupt:
        if not isinstance(plugin, str):
            plugin.stop()
        raise
    except RuntimeError as error:
        LOG.debug('workflow: %s', error)  # each failed node is told from its crash file
    except Exception as error:
        if type(error).__name__ == 'BrokenProcessPool':
            return (
                'a worker process died, most often because the memory ran out. Run the same '
                'command again with fewer --nprocs: finished scans are kept'
            )
        raise
    return ''


def _write_reports(config: Config, scans: Sequence[Scan]) -> int:
    """Write session summaries and pages; return how many failed."""
    from bids_brainage.reports.participant import build_participant_report

    failed = 0
    for subject in dict.fromkeys(scan.subject for scan in scans):
        try:
            write_sessions_summary(config.execution.output_dir, subject)
            build_participant_report(
                config.execution.output_dir,
                subject,
                aggregate_sessions=config.execution.aggregate_session_reports,
            )
        except Exception as error:  # a page must not take the results of others along
            failed += 1
            LOG.error('sub-%s: the report could not be written: %s', subject, error)
    return failed


def _finish(
    config: Config, plan: Plan, failures: int, report_errors: int, status: StatusLog
) -> int:
    from bids_brainage.cli.results import rows_of

    rows = rows_of(config.execution.output_dir, plan.scans, plan.bundles)
    status.write()
    sys.stdout.write('\n' + summary_table(rows) + '\n\n')
    total = len(plan.scans) * len(plan.bundles)
    LOG.log(
        IMPORTANT,
        '%d ages, %d failed, %d were there already',
        total - failures,
        failures,
        total - sum(len(b) for _, b in plan.todo) - len(plan.unreadable) * len(plan.bundles),
    )
    for subject in dict.fromkeys(scan.subject for scan in plan.scans):
        page = config.execution.output_dir / f'sub-{subject}.html'
        if page.exists():
            LOG.log(IMPORTANT, 'report    %s', page)
    LOG.log(IMPORTANT, 'citation  %s', config.execution.output_dir / 'logs' / 'CITATION.md')
    if failures == total:
        return 65
    return 1 if failures or report_errors else 0
