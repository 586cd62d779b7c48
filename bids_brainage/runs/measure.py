"""Predict ages from what other programs measured: tables, rows, maps, side files."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.measured import MeasuredScan
from bids_brainage.dataset.stats_files import version_of
from bids_brainage.errors import BrainAgeError
from bids_brainage.inference.predict import predict
from bids_brainage.inference.result import content_of
from bids_brainage.inference.row import flags_of, prediction_facts, prediction_row
from bids_brainage.inputs.harmonise import SiteShift
from bids_brainage.inputs.measures import head_is_wrong, quality_of
from bids_brainage.names import log_dir, side_file
from bids_brainage.outputs import (
    StatusLog,
    brainage_row,
    write_brainage,
    write_json,
    write_text,
    write_tsv,
)
from bids_brainage.outputs.provenance import MADE_FROM
from bids_brainage.outputs.tables import column_names, data_dictionary
from bids_brainage.preprocessing.quality import image_flags
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.measured_maps import write_map
from bids_brainage.runs.plan import Plan
from bids_brainage.runs.process import provenance_of
from bids_brainage.runs.progress import SAVED
from bids_brainage.workflows.images import (
    measures_path,
    table_path,
)
from bids_brainage.workflows.made_from import of_prediction
from bids_brainage.workflows.naming import row_columns, scan_columns

LOG = logging.getLogger('bids_brainage')
_SPELLED = {
    'freesurfer': 'FreeSurfer',
    'fastsurfer': 'FastSurfer',
    'synthseg': 'SynthSeg',
    'dlmuse': 'DLMUSE',
}
HARMONISED_TEXT = (
    ' At sites with enough people of known age, what these differed by on average from the usual '
    'person of their age was taken off the measures, shrunk as in ComBat (Johnson et al. 2007, '
    'doi:10.1093/biostatistics/kxj037), nobody counting for themselves.'
)
OF_THE_HEAD = 'brain/head'
"""Feature that a wrong size of the head leaves out; its flag says so."""


def predict_tables(config: Config, plan: Plan, ledger: Ledger, status: StatusLog) -> int:
    """Do what a plan says of tables; return how many ages failed.

    Parameters
    ----------
    config : Config
    plan : Plan
    ledger : Ledger
    status : StatusLog
        Gets one line for each age.
    """
    failed = 0
    for scan, bundles in plan.elsewhere.todo:
        logs = log_dir(config.execution.run_id, scan.subject, scan.session)
        write_text(config.execution.output_dir / logs / 'bids_brainage.toml', config.to_toml())
        for bundle in bundles:
            start = time.monotonic()
            try:
                _predict(scan, bundle, ledger, plan.elsewhere.harmonisation.shift_of(scan, bundle))
            except (BrainAgeError, OSError) as error:
                failed += 1
                LOG.error('%s: failed: %s', scan.stem, error)
                status.add(scan.uri, 'result', 'failed', model=bundle.name, message=str(error))
                _write_failed(config.execution.output_dir, scan, bundle)
                continue
            seconds = round(time.monotonic() - start, 1)
            status.add(scan.uri, SAVED, 'ok', model=bundle.name, seconds=seconds)
    return failed


def methods_of(plan: Plan) -> str:
    """Return the methods text of the models of tables, the same whoever is selected."""
    harmonised = {name for name, _, _ in plan.elsewhere.harmonisation.sites}
    return '\n\n'.join(
        f'Brain age was predicted with {bundle.name} (version {bundle.version}; '
        f'{bundle.metadata["reference"]["text"]}) from the tables of '
        f'{" or ".join(_SPELLED[program] for program in bundle.input["programs"])}, without an '
        'image.' + (HARMONISED_TEXT if bundle.name in harmonised else '')
        for bundle in plan.elsewhere.bundles
    )


def _predict(scan: MeasuredScan, bundle: Bundle, ledger: Ledger, shift: SiteShift | None) -> None:
    """Write the measures, the row and the map of one visit."""
    if scan.problem:
        raise BrainAgeError(scan.problem)
    config, root = ledger.config, ledger.config.execution.output_dir
    digest = ledger.input_sha256(scan)
    found = scan.measures()
    table = _write_measures(root, scan, found, digest)
    files = {'measures': table}
    if scan.segmentation is not None:
        files['segmentation'] = scan.segmentation
    prediction = predict(
        bundle,
        files,
        saliency=config.workflow.saliency,
        reference_age=scan.age.years,
        shift=None if shift is None else shift.values,
    )
    for item in prediction.maps:
        write_map(config, scan, bundle, item, _sources(scan))
    quality = quality_of(found)
    content = content_of(prediction)
    row = prediction_row(
        row_columns(config, scan, bundle),
        content,
        bundle,
        _flags(scan, bundle, content, found, quality),
    )
    made_from = {**of_prediction(config, scan, bundle, shift=shift), 'InputSHA256': digest}
    facts = {**prediction_facts(content, bundle), 'Program': scan.program, MADE_FROM: made_from}
    write_brainage(
        table_path(root, scan),
        [row],
        models={bundle.name: facts},
        metadata={
            **provenance_of(config),
            'Sources': _sources(scan),
            'InputSHA256': digest,
            'Quality': quality,
        },
    )


def _sources(scan: MeasuredScan) -> list[str]:
    """Return the URIs of all files, the one that the row names first."""
    folder = scan.uri.removesuffix(scan.relative) + scan.relative.rpartition('/')[0]
    others = [path.name for role, path in scan.tables.items() if path != scan.path]
    return [scan.uri, *(f'{folder}/{name}' for name in others)]


def _write_measures(
    root: Path, scan: MeasuredScan, found: dict[str, float], digest: str | dict[str, str]
) -> Path:
    """Write what was read, under the names of this program."""
    table = measures_path(root, scan)
    rows = [{'measure': name, 'value': found[name], 'unit': _unit(name)} for name in sorted(found)]
    facts = {
        'Program': scan.program,
        'Version': version_of(scan.path) if not scan.row else '',
        'LongitudinalStream': scan.longitudinal,
        'InputSHA256': digest,
        'Sources': _sources(scan),
    }
    write_json(side_file(table), {**data_dictionary('measures'), **facts})
    write_tsv(table, rows, column_names('measures'))
    return table


def _unit(name: str) -> str:
    """Return the unit of a measure by its name."""
    for end, unit in (('-thickness', 'mm'), ('-area', 'mm2')):
        if name.startswith(('lh-', 'rh-')) and name.endswith(end):
            return unit
    return '1' if name.endswith(('SurfaceHoles', '-to-eTIV')) else 'mm3'


def _flags(
    scan: MeasuredScan,
    bundle: Bundle,
    prediction: dict[str, Any],
    found: dict[str, float],
    quality: dict[str, float],
) -> list[str]:
    """Return the flags of one prediction."""
    lacking = set(prediction['estimated'])
    if head_is_wrong(found):
        lacking -= {OF_THE_HEAD}
    fitted_on = bundle.input.get('fitted_on', bundle.input['programs'])
    own = {
        'tables_incomplete': bool(lacking),
        'tables_other_program': scan.program not in fitted_on,
        'tables_longitudinal': scan.longitudinal,
    }
    return [
        *image_flags(quality),
        *(flag for flag, raised in own.items() if raised),
        *flags_of(prediction, bundle, scan.age.years),
    ]


def _write_failed(root: Path, scan: MeasuredScan, bundle: Bundle) -> None:
    row = brainage_row(
        **scan_columns(scan), model=bundle.name, model_version=bundle.version, status='failed'
    )
    write_brainage(table_path(root, scan), [row], metadata={'Sources': [scan.uri]})
