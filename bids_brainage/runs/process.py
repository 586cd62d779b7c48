"""The workflows of a participant-level run: build them from the plan, run them, follow them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import learns_graph
from bids_brainage.names import log_dir
from bids_brainage.outputs import StatusLog, config_hash, write_citations
from bids_brainage.outputs.files import write_text
from bids_brainage.outputs.provenance import software_versions
from bids_brainage.preprocessing.template import find_template
from bids_brainage.runs.batches import batch_size, batches
from bids_brainage.runs.environment import template_root
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import Plan, Work, images_of
from bids_brainage.runs.progress import SAVED, Progress
from bids_brainage.runs.settle import crash_reason
from bids_brainage.runs.work import Sweeper
from bids_brainage.workflows.naming import scan_workflow_name
from bids_brainage.workflows.plugin import SUBMITTERS
from bids_brainage.workflows.settings import RunSettings, ScanWork

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow

    from bids_brainage.dataset.series import Series
    from bids_brainage.runs.combine import Combiner

LOG = logging.getLogger('bids_brainage')
PACKAGES = (
    'bids_brainage', 'numpy', 'scipy', 'torch', 'nipype', 'SimpleITK', 'picsl_greedy', 'deepbet',
)  # fmt: skip


def process(
    config: Config, plan: Plan, ledger: Ledger, status: StatusLog, combiner: Combiner | None
) -> str:
    """Do what a plan says; return what stopped it before its end, or nothing.

    Parameters
    ----------
    config : Config
    plan : Plan
    ledger : Ledger
    status : StatusLog
        Gets one line for each step.
    combiner : Combiner or None
        Writes the rows that are computed from those of other models, if there are any.
    """
    settings = run_settings(config, template_root(config.execution.work_dir))
    can_run = [series for series in plan.series_todo if series.problem is None]
    if can_run:
        _check_atlas(config)
    for scan in [scan for scan, _ in plan.todo] + [series.scan for series in can_run]:
        logs = log_dir(config.execution.run_id, scan.subject, scan.session)
        write_text(config.execution.output_dir / logs / 'bids_brainage.toml', config.to_toml())
    passes = _Passes(settings, plan, ledger, status, combiner)
    crashed = passes.run_all(plan.first, can_run)
    # a model gets the connectivity that is there after the functional runs, so that a run which
    # failed costs it only that
    second = tuple(item for item in plan.second if not crash_reason(config, item[0]))
    if second and not crashed:
        crashed = passes.run_all(second)
    return crashed


def _check_atlas(config: Config) -> None:
    """Find the atlas before anything runs; fetch it if that is allowed."""
    from bids_brainage.preprocessing.bold.atlases import resolve_atlas

    resolve_atlas(
        config.workflow.atlas,
        table=config.workflow.atlas_labels,
        download=not config.execution.offline,
    )


def run_settings(config: Config, root: Path) -> RunSettings:
    """Return what all workflows of a run share; `root` holds the default template."""
    from bids_brainage.workflows.settings import RunSettings

    return RunSettings(
        config=config,
        registration_template=find_template(root, resolution=2),
        output_template=find_template(root, resolution=1),
        provenance=provenance_of(config),
    )


def provenance_of(config: Config) -> dict[str, Any]:
    """Return options and versions for the side files."""
    options = config.workflow.image_options()
    return {
        'ConfigurationHash': config_hash(options),
        'Options': options,
        'RandomSeed': config.seeds.random_seed,
        'SoftwareVersions': software_versions(PACKAGES),
    }


@dataclass
class _Passes:
    """Workflows that a run needs one after the other.

    Attributes
    ----------
    settings : RunSettings
    plan : Plan
    ledger : Ledger
    status : StatusLog
    combiner : Combiner or None
    """

    settings: RunSettings
    plan: Plan
    ledger: Ledger
    status: StatusLog
    combiner: Combiner | None
    _methods: dict[str, None] = field(default_factory=dict)
    _progress: Progress | None = None

    def __post_init__(self) -> None:
        self._left = {scan.uri: len(bundles) for scan, bundles in self.plan.todo}

    def run_all(self, todo: Work, series: Sequence[Series] = ()) -> str:
        """Run the workflows of all batches; return what stopped them, or nothing."""
        nipype = self.settings.config.nipype
        found = batches(todo, series, batch_size(nipype.nprocs, nipype.plugin))
        sizes = [len(images_of(*batch)) for batch in found]
        with self._watched():
            for number, batch in enumerate(found):
                if crashed := self._run(*batch, later=sum(sizes[number + 1 :])):
                    return crashed
        return ''

    def _watched(self) -> AbstractContextManager[None]:
        execution = self.settings.config.execution
        if not execution.resource_monitor:
            return nullcontext()
        from bids_brainage.runs.monitor import monitored

        table = execution.output_dir / log_dir(execution.run_id) / 'resources.tsv'
        return monitored(table, self._running)

    def _running(self) -> list[str]:
        return sorted(self._progress.running.copy().values()) if self._progress else []

    def _run(self, todo: Work, series: Sequence[Series], later: int) -> str:
        """Run one workflow, `later` images before the end."""
        from bids_brainage.workflows.participant import init_participant_wf, methods_text

        config = self.settings.config
        workflow = init_participant_wf(
            todo=[self._work(scan, bundles) for scan, bundles in todo],
            settings=self.settings,
            series=series,
            anatomy={s.t1w.uri: self.ledger.stored(s.t1w) for s in series if s.t1w is not None},
        )
        self._methods.update(dict.fromkeys(methods_text(workflow).split('\n\n')))
        write_citations(
            config.execution.output_dir,
            '\n\n'.join(self._methods),
            md_only=config.execution.md_only_boilerplate,
        )
        if config.execution.write_graph:
            workflow.write_graph(
                dotfilename=str(config.execution.output_dir / 'logs' / 'graph.dot'),
                graph2use='colored',
                simple_form=True,
            )
        names = {scan_workflow_name(scan): scan for scan in images_of(todo, series)}
        before = self._progress
        self._progress = Progress(
            {name: scan.stem for name, scan in names.items()},
            config.nipype.nprocs,
            lambda name, *step: self._record(names[name], *step),
            workflow.list_node_names(),
            self._sweep(workflow, names, series),
            later=later,
            seconds=before.seconds if before else None,
        )
        return execute(config, workflow, self._progress)

    def _sweep(
        self, workflow: LiterateWorkflow, names: Collection[str], series: Sequence[Series]
    ) -> Callable[[str], None] | None:
        """Return what removes the folders of scans that are finished, unless they are kept."""
        config = self.settings.config
        if config.execution.keep_work:
            return None
        waiting = {scan_workflow_name(scan) for scan, _ in self.plan.second}
        if series:  # what waits for these is done in the next workflow, with the same folder
            names = [name for name in names if name not in waiting]
        needed = [
            (scan_workflow_name(item.t1w), scan_workflow_name(item.scan))
            for item in series
            if item.t1w is not None
        ]
        return Sweeper(config.execution.work_dir, workflow, names, needed).ended

    def _work(self, scan: Scan, bundles: tuple[Bundle, ...]) -> ScanWork:
        """Return what a workflow is to do with one scan."""
        cbv = self.plan.cbv.sources.get(scan.uri)
        return ScanWork(
            scan,
            bundles,
            images=scan.uri in self.plan.images,
            stored=self.ledger.stored(scan, cbv),
            cbv=cbv,
            connectivity={
                bundle.name: self.ledger.connectivity_of(scan, bundle.input['n_nodes'])
                for bundle in bundles
                if learns_graph(bundle.input)
            },
        )

    def _record(self, scan: Scan, step: str, result: str, seconds: float) -> None:
        """Note a step, and combine the models of a scan as soon as the last has its row."""
        self.status.add(scan.uri, step, result, seconds=seconds)
        if step == SAVED and result == 'ok':
            self._left[scan.uri] -= 1
            if self._left[scan.uri] == 0 and self.combiner is not None:
                self.combiner.write(scan)


def execute(config: Config, workflow: LiterateWorkflow, progress: Progress) -> str:
    """Run a workflow as the settings say; return what stopped it before its end, or nothing."""
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
    except BrokenProcessPool:
        return (
            'a worker process died, most often because the memory ran out. Run the same '
            'command again with fewer --nprocs: finished scans are kept'
        )
    except RuntimeError as error:
        LOG.debug('workflow: %s', error)  # each failed node is told from its crash file
        if config.nipype.stop_on_first_crash:
            return 'a step failed before, and --stop-on-first-crash ends the run there'
    return ''
