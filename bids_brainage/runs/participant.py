"""The participant level: from a BIDS dataset to brain ages, maps and reports."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series
from bids_brainage.outputs import (
    Container,
    StatusLog,
    check_output,
    config_hash,
    write_citations,
    write_dataset_files,
    write_sessions_summary,
)
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.outputs.provenance import software_versions
from bids_brainage.runs.cbv import record_cbv
from bids_brainage.runs.claim import claimed
from bids_brainage.runs.combine import combined_names, write_combined
from bids_brainage.runs.environment import check_device
from bids_brainage.runs.plan import (
    Plan,
    Work,
    images_of,
    make_plan,
    people_missing,
    resolve_models,
    select_images,
    show_plan,
    show_reports,
)
from bids_brainage.runs.progress import Progress, summary_table
from bids_brainage.runs.series import (
    GRAPH_KIND,
    connectivity_of,
    record_series,
    series_asked_for,
)
from bids_brainage.workflows.naming import scan_workflow_name
from bids_brainage.workflows.plugin import SUBMITTERS, require_scheduler

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow

    from bids_brainage.workflows.settings import RunSettings

LOG = logging.getLogger('bids_brainage')
PACKAGES = (
    'bids_brainage', 'numpy', 'scipy', 'torch', 'nipype', 'SimpleITK', 'picsl_greedy', 'deepbet',
)  # fmt: skip


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
    scans, series = select_images(config)
    check_device(config)
    if execution.reports_only and execution.dry_run:
        return show_reports(scans)
    if execution.reports_only:
        return _write_reports(config, scans)
    bundles = resolve_models(config)
    series = series_asked_for(config, series, bundles)
    check_output(execution.output_dir, digest)
    plan = make_plan(config, scans, series, bundles, digest)
    if execution.dry_run:
        return show_plan(plan)
    require_scheduler(config.nipype.plugin)
    with claimed(execution.work_dir, (scan.path.name for scan in plan.busy)):
        if execution.clean_workdir:
            clean_work(execution.work_dir, plan)
        return _run(config, plan, digest)


def clean_work(work_dir: Path, plan: Plan) -> None:
    """Remove what earlier runs, of any version, left of the images to do."""
    for scan in plan.busy:
        for folder in work_dir.glob(f'bids_brainage_*_wf/{scan_workflow_name(scan)}'):
            shutil.rmtree(folder)


def _run(config: Config, plan: Plan, digest: str) -> int:
    """Do what is planned, and tell failures and results."""
    from bids_brainage.runs.results import write_failures

    execution = config.execution
    _announce(config, plan)
    _write_root(config, digest)
    status = StatusLog(execution.output_dir, execution.run_id)
    failures, lost, ended = 0, 0, False
    try:
        crashed = _process(config, plan, digest, status) if plan.todo or plan.series_todo else ''
        ended = True
    finally:
        if ended:  # a run that was stopped has scans that are neither done nor failed
            failures = write_failures(config, plan, digest, status, crashed)
            lost = record_series(config, plan, digest, status, crashed)
            lost += record_cbv(config, plan.scans, plan.cbv, status, crashed)
            write_combined(config, plan)
        report_errors = _write_reports(config, plan.scans, ended)
    return _finish(config, plan, failures, lost + report_errors, status)


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
    if plan.series:
        LOG.log(IMPORTANT, 'series    %d BOLD, %d to do', len(plan.series), len(plan.series_todo))
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
        config.execution.output_dir,
        config.execution.bids_dir,
        digest,
        derivatives=config.execution.derivatives,
        container=container,
    )


def _process(config: Config, plan: Plan, digest: str, status: StatusLog) -> str:
    """Build and run the workflow; return what stopped it before its end, or nothing."""
    from bids_brainage.names import log_dir
    from bids_brainage.outputs.files import write_text
    from bids_brainage.runs.environment import template_root
    from bids_brainage.runs.results import crash_reason

    settings = _settings(config, template_root(config.execution.work_dir), digest)
    can_run = [series for series in plan.series_todo if series.problem is None]
    if can_run:
        _check_atlas(config)
    for scan in [scan for scan, _ in plan.todo] + [series.scan for series in can_run]:
        logs = log_dir(config.execution.run_id, scan.subject, scan.session)
        write_text(config.execution.output_dir / logs / 'bids_brainage.toml', config.to_toml())
    methods: dict[str, None] = {}
    crashed = _run_pass(config, plan, plan.first, can_run, settings, status, methods)
    # a model gets the connectivity that is there after the functional runs, so that a run which
    # failed costs it only that
    second = tuple(item for item in plan.second if not crash_reason(config, item[0]))
    if second and not crashed:
        crashed = _run_pass(config, plan, second, (), settings, status, methods)
    return crashed


def _check_atlas(config: Config) -> None:
    """Find the atlas before anything runs; fetch it if that is allowed."""
    from bids_brainage.preprocessing.bold.atlases import resolve_atlas

    resolve_atlas(
        config.workflow.atlas,
        table=config.workflow.atlas_labels,
        download=not config.execution.offline,
    )


def _run_pass(
    config: Config,
    plan: Plan,
    todo: Work,
    series: Sequence[Series],
    settings: RunSettings,
    status: StatusLog,
    methods: dict[str, None],
) -> str:
    """Run one workflow; return what stopped it before its end, or nothing.

    `methods` collects the paragraphs of the methods text over the passes of a run; only the
    first of them saves images and pictures.
    """
    from bids_brainage.workflows.participant import init_participant_wf, methods_text

    digest = settings.provenance['ConfigurationHash']
    connectivity = {
        (scan.uri, bundle.name): connectivity_of(
            config, scan, plan.series, bundle.input['n_nodes'], digest
        )
        for scan, bundles in todo
        for bundle in bundles
        if bundle.input['kind'] == GRAPH_KIND
    }
    workflow = init_participant_wf(
        todo=todo,
        settings=settings,
        series=series,
        connectivity=connectivity,
        cbv=plan.cbv.sources,
        derivatives=not methods,
    )
    methods.update(dict.fromkeys(methods_text(workflow).split('\n\n')))
    write_citations(config.execution.output_dir, '\n\n'.join(methods))
    if config.execution.write_graph:
        workflow.write_graph(
            dotfilename=str(config.execution.output_dir / 'logs' / 'graph.dot'),
            graph2use='colored',
            simple_form=True,
        )
    names = {scan_workflow_name(scan): scan for scan in images_of(todo, series)}
    progress = Progress(
        {name: scan.stem for name, scan in names.items()},
        config.nipype.nprocs,
        lambda name, step, result, seconds: status.add(
            names[name].uri, step, result, seconds=seconds
        ),
        workflow.list_node_names(),
    )
    return _execute(config, workflow, progress)


def _settings(config: Config, root: Path, digest: str) -> RunSettings:
    from bids_brainage.preprocessing.template import find_template
    from bids_brainage.workflows.settings import RunSettings

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
        atlas=config.workflow.atlas,
        atlas_table=config.workflow.atlas_labels,
        synthetic_slices=config.workflow.synthetic_slices,
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
    elif plugin in SUBMITTERS:
        from bids_brainage.workflows.scheduling import make_cluster_plugin, suit_cluster

        suit_cluster(workflow)
        plugin = make_cluster_plugin(plugin, arguments, cancel=SUBMITTERS[plugin][-1])
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


def _write_reports(config: Config, scans: Sequence[Scan], ended: bool = True) -> int:
    """Write session summaries and pages; return how many failed.

    In a run that was stopped (`ended` false) people without a result get none.
    """
    from bids_brainage.reports.participant import build_participant_report

    failed = 0
    for subject in dict.fromkeys(scan.subject for scan in scans):
        own = config.execution.output_dir / f'sub-{subject}'
        if not ended and not any(own.rglob('*_brainage.tsv')):
            continue
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
    from bids_brainage.runs.results import rows_of

    names = [b.name for b in plan.bundles] + combined_names(config, plan.bundles)
    rows = rows_of(config.execution.output_dir, plan.scans, names)
    status.write()
    sys.stdout.write('\n' + summary_table(rows) + '\n\n')
    total = len(plan.scans) * len(plan.bundles)
    skipped = sum(scan.uri not in plan.cbv.problems for scan, _ in plan.without)
    LOG.log(
        IMPORTANT,
        '%d ages, %d failed, %d were there already',
        total - failures - skipped,
        failures,
        total
        - sum(len(b) for _, b in plan.todo)
        - len(plan.unreadable) * len(plan.bundles)
        - len(plan.without),
    )
    if skipped:
        LOG.warning('%d ages skipped for want of a blood-volume map', skipped)
    for subject in dict.fromkeys(scan.subject for scan in plan.scans):
        page = config.execution.output_dir / f'sub-{subject}.html'
        if page.exists():
            LOG.log(IMPORTANT, 'report    %s', page)
    LOG.log(IMPORTANT, 'citation  %s', config.execution.output_dir / 'logs' / 'CITATION.md')
    missing = people_missing(config, plan.scans)
    for label in missing:
        LOG.error('sub-%s was asked for and has no T1w image to use', label)
    if failures == total:
        return 65
    return 1 if failures or report_errors or missing else 0
