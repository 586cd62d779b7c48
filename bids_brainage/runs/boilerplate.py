"""The methods text of a run that is not done (``--boilerplate-only``)."""

from __future__ import annotations

import sys

from bids_brainage.config import Config
from bids_brainage.inputs.kinds import learns_graph
from bids_brainage.outputs import write_citations
from bids_brainage.runs.environment import template_root
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.plan import Plan
from bids_brainage.runs.process import run_settings
from bids_brainage.workflows.naming import takes_cbv
from bids_brainage.workflows.settings import ScanWork


def write_boilerplate(config: Config, plan: Plan, ledger: Ledger) -> int:
    """Write what a run from the beginning would say of its methods, and where that stands.

    Parameters
    ----------
    config : Config
    plan : Plan
        All its scans and functional runs count, whether they are done or not.
    ledger : Ledger

    Returns
    -------
    int
        0.
    """
    from bids_brainage.workflows.participant import init_participant_wf, methods_text

    sources = plan.cbv.sources
    todo = [
        ScanWork(
            scan,
            tuple(b for b in plan.bundles if scan.uri in sources or not takes_cbv(b)),
            cbv=sources.get(scan.uri),
            connectivity={
                b.name: ledger.connectivity_of(scan, b.input['n_nodes'])
                for b in plan.bundles
                if learns_graph(b.input)
            },
        )
        for scan in plan.scans
        if not scan.problem
    ]
    series = [item for item in plan.series if item.problem is None]
    settings = run_settings(config, template_root(config.execution.work_dir))
    workflow = init_participant_wf(todo=todo, settings=settings, series=series)
    path = write_citations(
        config.execution.output_dir,
        methods_text(workflow),
        md_only=config.execution.md_only_boilerplate,
    )
    sys.stdout.write(f'{path}\n')
    return 0
