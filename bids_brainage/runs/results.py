"""What stands in the output dataset: what is finished, and rows for what failed."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.aicbv import CbvSource
from bids_brainage.dataset.scan import Scan
from bids_brainage.dataset.series import Series
from bids_brainage.errors import BrainAgeError
from bids_brainage.names import log_dir
from bids_brainage.outputs import (
    StatusLog,
    brainage_row,
    derivative_path,
    read_brainage,
    sha256_file,
    write_brainage,
)
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.runs.cbv import NO_MAP, cbv_written
from bids_brainage.runs.series import (
    GRAPH_KIND,
    connectivity_of,
    series_finished,
    session_series,
)
from bids_brainage.workflows.naming import (
    scan_columns,
    scan_workflow_name,
    takes_cbv,
    takes_native,
)

if TYPE_CHECKING:
    from bids_brainage.runs.plan import Plan

LOG = logging.getLogger('bids_brainage')
_ERROR = re.compile(r'^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception|Killed)\w*): (.*)')


def table_path(output_dir: Path, scan: Scan) -> Path:
    """Return the prediction table of a scan."""
    return output_dir / derivative_path(
        {**scan.entities, 'suffix': 'brainage', 'extension': '.tsv'}, scan.datatype
    )


def finished(
    output_dir: Path,
    scan: Scan,
    bundle: Bundle,
    digest: str,
    config: Config,
    series: Sequence[Series] = (),
    *,
    cbv: CbvSource | None = None,
    final: bool = False,
) -> bool:
    """Return whether a scan has a result of a model that need not be made again.

    It has if its row is ``ok`` and was made with the same weights and calibration, the same
    image options and the same input files, and its image derivatives and maps are there.
    A model that takes connectivity is not finished while a functional run of the session is
    not, unless what there is now is ``final``.
    """
    table = table_path(output_dir, scan)
    if not table.is_file():
        return False
    rows = [
        row
        for row in read_brainage(table)
        if row['source'] == scan.uri and row['model'] == bundle.name and row['status'] == 'ok'
    ]
    side = read_json(table.with_suffix('.json'))
    facts = side.get('Models', {}).get(bundle.name, {})
    return (
        bool(rows)
        and facts.get('WeightsSHA256') == bundle.weights_sha256
        and facts.get('BundleConfigHash') == bundle.metadata['config_hash']
        and facts.get('Conformal') == bundle.metadata['conformal']
        and facts.get('BiasCorrection') == bundle.metadata['bias_correction']
        and side.get('ConfigurationHash') == digest
        and side.get('RandomSeed') == config.seeds.random_seed
        and all((output_dir / path).is_file() for path in _expected(scan, bundle, config))
        and side.get('InputSHA256') == sha256_file(scan.path)
        and bool(facts.get('SyntheticScans')) == sliced(config, scan, bundle)
        and (not takes_cbv(bundle) or _same_cbv(output_dir, scan, cbv, facts))
        and _same_connectivity(config, scan, bundle, digest, series, facts, final)
    )


def sliced(config: Config, scan: Scan, bundle: Bundle) -> bool:
    """Return whether a scan is predicted as the thick-slice scans that it contains."""
    clinical = bundle.input['kind'] == 't1w_clinical'
    return config.workflow.synthetic_slices and clinical and not takes_native(scan, bundle)


def _same_cbv(
    output_dir: Path, scan: Scan, cbv: CbvSource | None, facts: Mapping[str, Any]
) -> bool:
    """Return whether a result rests on the blood-volume map that it would get now."""
    if cbv is None:
        return False
    return facts.get('CBVSHA256') == cbv.sha256 and cbv_written(output_dir, scan, cbv)


def _same_connectivity(
    config: Config,
    scan: Scan,
    bundle: Bundle,
    digest: str,
    series: Sequence[Series],
    facts: Mapping[str, Any],
    final: bool,
) -> bool:
    """Return whether a result rests on the connectivity that it would get now."""
    if bundle.input['kind'] != GRAPH_KIND:
        return True
    own = session_series(scan, series)
    if not final and any(s.problem or not series_finished(config, s, digest) for s in own):
        return False
    now = connectivity_of(config, scan, series, bundle.input['n_nodes'], digest).path
    hashed = sha256_file(now) if now else None
    return bool(facts.get('ConnectivitySHA256') == hashed)


def _expected(scan: Scan, bundle: Bundle, config: Config) -> list[Any]:
    """Return the files that a finished scan must have, relative to the output dataset."""
    base = {**scan.entities, 'space': DEFAULT_SPACE, 'res': '1'}
    wanted = [
        {**base, 'desc': 'preproc', 'suffix': 'T1w'},
        {**base, 'desc': 'affine', 'suffix': 'T1w'},
        {**base, 'desc': 'brain', 'suffix': 'mask'},
        {**base, 'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'},
        {**base, 'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg'},
        {**scan.entities, 'suffix': 'volumes'},
    ]
    if takes_native(scan, bundle):
        base = {**scan.entities, 'space': 'T1w'}
        wanted = [{**scan.entities, 'desc': 'brain', 'suffix': 'mask'}]
    methods = bundle.metadata['saliency'][:1]
    if config.workflow.saliency is not None:
        methods = [m for m in config.workflow.saliency if m in bundle.metadata['saliency']]
    wanted += [
        {**base, 'model': bundle.label, 'desc': method.replace('_', ''), 'suffix': 'saliency'}
        for method in methods
        if method != 'attention'  # one file per stream, named by the model
    ]
    return [derivative_path(entities, scan.datatype) for entities in wanted]


def rows_of(
    output_dir: Path, scans: Sequence[Scan], names: Collection[str]
) -> list[dict[str, Any]]:
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


def write_failures(
    config: Config, plan: Plan, digest: str, status: StatusLog, crashed: str
) -> int:
    """Write a row for every scan and model without a result, and return how many there are.

    Parameters
    ----------
    config : Config
    plan : Plan
    digest : str
        Configuration hash.
    status : StatusLog
        Gets one line for each failure, with its reason.
    crashed : str
        What stopped the whole run, or empty.
    """
    output_dir = config.execution.output_dir
    failures = 0
    missing = [(scan, plan.bundles, why) for scan, why in plan.unreadable]
    for scan, bundles in plan.todo:
        left = tuple(
            b
            for b in bundles
            if not finished(
                output_dir,
                scan,
                b,
                digest,
                config,
                plan.series,
                cbv=plan.cbv.sources.get(scan.uri),
                final=True,
            )
        )
        if left:
            missing.append((scan, left, crash_reason(config, scan) or crashed or 'no result'))
    for scan, bundle in plan.without:
        if why := plan.cbv.problems.get(scan.uri):
            missing.append((scan, (bundle,), why))
        else:
            _skip(output_dir, scan, bundle, status)
    for scan, bundles, why in missing:
        failures += len(bundles)
        LOG.error('%s: failed: %s', scan.stem, why)
        for bundle in bundles:
            status.add(scan.uri, 'result', 'failed', model=bundle.name, message=why)
        rows = [
            brainage_row(
                **scan_columns(scan),
                model=bundle.name,
                model_version=bundle.version,
                status='failed',
            )
            for bundle in bundles
        ]
        write_brainage(table_path(output_dir, scan), rows, metadata={'Sources': [scan.uri]})
        draw_failed(config, scan)
    return failures


def draw_failed(config: Config, scan: Scan) -> None:
    """Draw the image of a scan that failed, with its brain mask if it got that far.

    The picture takes the name of the mask's picture, so that a later success replaces it.
    """
    from bids_brainage.interfaces.anatomical import MASK
    from bids_brainage.interfaces.prediction import figure_path
    from bids_brainage.pictures.figures import plot_mask

    own = f'bids_brainage_*_wf/{scan_workflow_name(scan)}/*/extract_brain/{MASK}'
    made = max(config.execution.work_dir.glob(own), key=lambda p: p.stat().st_mtime, default=None)
    out = figure_path(str(config.execution.output_dir), str(scan.path), 'mask')
    try:
        plot_mask(scan.path, made, out)
    except (BrainAgeError, ValueError) as error:
        LOG.debug('%s: no picture of the failed scan: %s', scan.stem, error)


def _skip(output_dir: Path, scan: Scan, bundle: Bundle, status: StatusLog) -> None:
    """Write the row of a model that finds no blood-volume map."""
    status.add(scan.uri, 'result', 'skipped', model=bundle.name, message='no blood-volume map')
    row = brainage_row(
        **scan_columns(scan),
        model=bundle.name,
        model_version=bundle.version,
        qc_flag=NO_MAP,
        status='skipped',
    )
    write_brainage(table_path(output_dir, scan), [row], metadata={'Sources': [scan.uri]})


def crash_reason(config: Config, scan: Scan) -> str:
    """Return the message of the first error in the crash files of a scan, or nothing."""
    folder = config.execution.output_dir / log_dir(
        config.execution.run_id, scan.subject, scan.session
    )
    name = f'.{scan_workflow_name(scan)}.'
    for path in sorted(folder.glob('crash-*.txt')):
        text = path.read_text('utf-8', errors='replace')
        if name not in text.split('\n', 1)[0]:  # other lines may name the inputs' folders
            continue
        found = [m.groups() for m in map(_ERROR.match, text.splitlines()) if m]
        own = [message for kind, message in found if kind in _OWN]
        if own:
            return own[0]
        if found:
            return ': '.join(found[-1])
    return ''


_OWN = {
    'UnusableImageError', 'ProcessingError', 'BundleError', 'MissingInputError', 'TemporaryError',
}  # fmt: skip
