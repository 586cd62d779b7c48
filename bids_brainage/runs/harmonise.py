"""Bring the tables of other programs to the scale of a model's people (``--harmonise``)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.contract import SITE_SPREAD
from bids_brainage.config import Config
from bids_brainage.dataset.measured import MeasuredScan, find_measured
from bids_brainage.dataset.phenotype import phenotype_columns, site_of, value_of
from bids_brainage.errors import BrainAgeError, OptionError
from bids_brainage.inputs.harmonise import LEAST_PEOPLE, Site, residuals_of
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.inputs.measures import measured_features
from bids_brainage.names import SITE_COLUMNS
from bids_brainage.runs.shifts import Harmonisation

LOG = logging.getLogger('bids_brainage')
EVERYBODY = 'all'
"""Value of the option where all people of known age count."""


def find_harmonisation(config: Config, bundles: Sequence[Bundle]) -> Harmonisation:
    """Read the tables of everybody of known age, selected or not.

    Parameters
    ----------
    config : Config
    bundles : sequence of Bundle
        Of the run.

    Raises
    ------
    OptionError
        No model of the run can be harmonised, or nobody has the value that the option names.
    """
    asked = config.workflow.harmonise or EVERYBODY
    able = [
        b for b in bundles if kind_of(b.input).elsewhere and SITE_SPREAD in b.metadata['training']
    ]
    if not able:
        raise OptionError(
            '--harmonise needs a model of tables that says how sites differ, as tables.openneuro '
            f'does; the models of this run are {", ".join(b.name for b in bundles)}. Leave it '
            'out, or give --derivatives freesurfer=PATH.'
        )
    execution = config.execution
    scans = find_measured(
        execution.bids_dir, execution.derivatives, age_column=config.workflow.age_column
    )
    column, _, value = ('' if asked == EVERYBODY else asked).partition('=')
    columns = phenotype_columns(execution.bids_dir, [column] if column else [], SITE_COLUMNS)
    place = {scan.uri: site_of(columns, scan) for scan in scans}
    known = [
        scan
        for scan in scans
        if scan.age.years is not None and (not column or value_of(columns[column], scan) == value)
    ]
    if not known:
        raise OptionError(
            f'--harmonise {asked}: nobody of known age among {len(scans)} visits. Correct the '
            'option, or add ages to participants.tsv.'
        )
    sites = {
        (bundle.name, *key): site
        for bundle in able
        for key, site in _sites(bundle, known, place).items()
    }
    _tell(sites)
    return Harmonisation(sites, place)


def _sites(
    bundle: Bundle, scans: Sequence[MeasuredScan], place: Mapping[str, str]
) -> dict[tuple[str, str], Site]:
    """Return the people of each program and site; tables that cannot be read are left out."""
    rows: dict[tuple[str, str], list[tuple[str, float, np.ndarray]]] = defaultdict(list)
    for scan in scans:
        if scan.problem or scan.program not in bundle.input['programs']:
            continue
        try:
            features = measured_features(bundle.input['features'], scan.measures())
        except (BrainAgeError, OSError):
            continue  # told where its own age is predicted
        rows[scan.program, place[scan.uri]].append((scan.subject, scan.age.years or 0, features))
    curves = bundle.metadata['training']['reference_curves']
    return {
        key: Site(
            key[1],
            tuple(person for person, _, _ in own),
            residuals_of(
                np.array([x for _, _, x in own]), np.array([age for _, age, _ in own]), curves
            ),
        )
        for key, own in rows.items()
    }


def _tell(sites: Mapping[tuple[str, str, str], Site]) -> None:
    for (bundle, program, name), site in sites.items():
        n = len(set(site.people))
        where = f'{program}{f", site {name}" if name else ""}'
        if n <= LEAST_PEOPLE:
            LOG.warning(
                '--harmonise: %s has %d people of known age, fewer than %d: the ages of %s are '
                'not harmonised there.', where, n, LEAST_PEOPLE + 1, bundle,
            )  # fmt: skip
        else:
            LOG.info('%s: harmonised by %d people of known age for %s', where, n, bundle)
