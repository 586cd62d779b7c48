"""Rows that are computed from the rows of other models: System B's regressions, the consensus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.people import in_any_training
from bids_brainage.bundles.regressions import TERMS
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.inference.consensus import (
    Interval,
    Member,
    consensus_age,
    consensus_weights,
    validated_members,
)
from bids_brainage.inference.interval import conformal_interval, in_training_range
from bids_brainage.names import CONSENSUS
from bids_brainage.outputs import brainage_row, read_brainage, write_brainage
from bids_brainage.preprocessing.quality import prediction_flags
from bids_brainage.runs.fusions import Fusion, fusions_of
from bids_brainage.runs.rows import weighted_corrected
from bids_brainage.statistics.nested import SEX_CODES
from bids_brainage.workflows.images import table_path
from bids_brainage.workflows.naming import scan_columns

Row = dict[str, Any]
Visit = tuple[str, str | None]
OWN_FLAGS = frozenset({'predicted_at_limit', 'wide_interval', 'age_outside_training'})
"""Flags of one prediction that say nothing of one computed from it."""

MEMBER_MISSING = 'member_missing'
SEX_MISSING = 'sex_missing'


def consensus_of(bundles: Sequence[Bundle]) -> list[tuple[Member, Bundle]]:
    """Return the models of the consensus, each with the bundle that it is from.

    System B enters once: as the richest of its regressions that has a held-out error, in place
    of its networks.

    Raises
    ------
    OptionError
        They cannot be weighed.
    """
    fusions = fusions_of(bundles)
    inside = {name for fusion in fusions for name in fusion.networks.values()}
    models, used = [], []
    for bundle in bundles:
        simulated = bool(bundle.metadata['training']['simulated'])
        own = next((f for f in fusions if f.bundle.name == bundle.name), None)
        tested = own.best_tested() if own is not None else None
        if own is not None and tested is not None:
            name, checks = own.row_name(tested), [own.check(tested)]
        elif bundle.name not in inside or own is not None:
            name, checks = bundle.name, bundle.metadata['validation']
        else:
            continue
        models.append((name, checks, simulated))
        used.append(bundle)
    members = validated_members(models)
    consensus_weights(members)
    return list(zip(members, used, strict=True))


class Combiner:
    """Writes the combined rows of scans from the rows that are on disk.

    Parameters
    ----------
    config : Config
    bundles : sequence of Bundle
        Models of the run.
    measured : sequence of Scan
        What other programs measured; the consensus of an image takes the ages of its session.
    """

    def __init__(
        self, config: Config, bundles: Sequence[Bundle], measured: Sequence[Scan] = ()
    ) -> None:
        self._root = config.execution.output_dir
        self._measured: dict[Visit, list[Scan]] = {}
        for scan in measured:
            self._measured.setdefault((scan.subject, scan.session), []).append(scan)
        self._fusions = fusions_of(bundles)
        self._members = consensus_of(bundles) if config.workflow.consensus else []

    def write(self, scan: Scan) -> None:
        """Write the combined rows of one scan, if there are any."""
        table = table_path(self._root, scan)
        if not (self._fusions or self._members) or not table.is_file():
            return
        rows = {**self._of_session(scan), **self._own(scan)}
        made: dict[str, tuple[Row, dict[str, Any]]] = {}
        for fusion in self._fusions:
            made.update(fused_rows(fusion, scan, rows))
        rows.update({name: row for name, (row, _) in made.items()})
        if self._members:
            made[CONSENSUS] = consensus_row(scan, rows, self._members)
        write_brainage(
            table,
            [row for row, _ in made.values()],
            models={name: facts for name, (_, facts) in made.items()},
        )

    def write_all(self, scans: Sequence[Scan]) -> None:
        """Write the combined rows of images, and of visits with tables and no image."""
        tables = {scan.uri for found in self._measured.values() for scan in found}
        visits = {(s.subject, s.session) for s in scans if s.uri not in tables}
        for scan in scans:
            if scan.uri not in tables or (scan.subject, scan.session) not in visits:
                self.write(scan)

    def _own(self, scan: Scan) -> dict[str, Row]:
        table = table_path(self._root, scan)
        found = read_brainage(table) if table.is_file() else []
        return {row['model']: row for row in found if row['source'] == scan.uri}

    def _of_session(self, scan: Scan) -> dict[str, Row]:
        """Return the rows of what other programs measured in the session of an image."""
        found: dict[str, Row] = {}
        for other in self._measured.get((scan.subject, scan.session), ()):
            found = {**self._own(other), **found}
        return found


def combined_names(config: Config, bundles: Sequence[Bundle]) -> list[str]:
    """Return the names of the combined rows of a run."""
    names = [f.row_name(formula) for f in fusions_of(bundles) for formula in f.regressions]
    return [*names, CONSENSUS] if config.workflow.consensus else names


def fused_rows(
    fusion: Fusion, scan: Scan, rows: Mapping[str, Row]
) -> dict[str, tuple[Row, dict[str, Any]]]:
    """Return the row and the facts of each regression of a bundle.

    Parameters
    ----------
    fusion : Fusion
    scan : Scan
    rows : mapping
        Rows of the scan by model.

    Returns
    -------
    dict
        By name.  A regression whose network has no age is ``skipped``, or ``failed`` if the
        network failed.  Without a known sex, TAS has the age and interval of TA and a flag.
    """
    code = SEX_CODES.get(scan.sex or '')
    training = fusion.bundle.metadata['training']
    limits = (training['age_min'], training['age_max'])
    made = {}
    for formula in fusion.regressions:
        used = 'TA' if formula == 'TAS' and code is None else formula
        extra = [SEX_MISSING] if used != formula else []
        terms = [term for term in TERMS[used] if term != 'sex']
        inputs = [rows.get(fusion.networks[term]) for term in terms]
        name = fusion.row_name(formula)
        known = [row for row in inputs if row is not None and row['status'] == 'ok']
        facts = fusion.facts(formula, used)
        if used not in fusion.regressions or len(known) < len(inputs):
            made[name] = (_empty(scan, name, fusion.bundle.version, inputs, extra), facts)
            continue
        ages = {term: rows[fusion.networks[term]]['predicted_age'] for term in terms}
        values = {term: np.array([value]) for term, value in {**ages, 'sex': code}.items()}
        age = float(fusion.regressions[used].predict(values)[0][0])
        interval = conformal_interval(age, fusion.conformal.get(used))
        flags = _carried(known, extra) + prediction_flags(
            predicted_age=age,
            age=scan.age.years,
            age_range=limits,
            interval=interval[:2] if interval else None,
            trained=True,
            typicality=None,
            outside_brain=None,
            note='',
        )
        row = _row(scan, name, fusion.bundle.version, age, None, interval, limits, None, flags)
        made[name] = ({**row, 'in_training': _seen(known)}, facts)
    return made


def consensus_row(
    scan: Scan, rows: Mapping[str, Row], members: Sequence[tuple[Member, Bundle]]
) -> tuple[Row, dict[str, Any]]:
    """Return the row and the facts of the consensus.

    It needs an age of every member, so that it means the same for everybody; else the row is
    ``skipped`` (``failed`` if a member failed).
    """
    weights = consensus_weights([member for member, _ in members])
    limits = _common_range([bundle for _, bundle in members])
    version = hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:8]
    facts = _consensus_facts([m for m, _ in members], weights, version, rows, limits)
    inputs = [rows.get(name) for name in weights]
    known = [row for row in inputs if row is not None and row['status'] == 'ok']
    if len(known) < len(inputs):
        return _empty(scan, CONSENSUS, version, inputs, [MEMBER_MISSING]), facts
    found = consensus_age(
        weights,
        {row['model']: row['predicted_age'] for row in known},
        {row['model']: _interval(row) for row in known},
    )
    mean = weighted_corrected(weights, rows)
    flags = _carried(known, []) + prediction_flags(
        predicted_age=found.age,
        age=scan.age.years,
        age_range=limits,
        interval=found.interval[:2] if found.interval else None,
        trained=True,
        typicality=None,
        outside_brain=None,
        note='',
    )
    row = _row(scan, CONSENSUS, version, found.age, found.sd, found.interval, limits, mean, flags)
    return {**row, 'in_training': _seen(known)}, facts


def _common_range(bundles: Sequence[Bundle]) -> tuple[float | None, float | None]:
    """Return the ages that the training people of all models span, years."""
    training = [bundle.metadata['training'] for bundle in bundles]
    lows, highs = ([item[key] for item in training] for key in ('age_min', 'age_max'))
    return None if None in lows else max(lows), None if None in highs else min(highs)


def _consensus_facts(
    members: Sequence[Member],
    weights: Mapping[str, float],
    version: str,
    rows: Mapping[str, Row],
    limits: tuple[float | None, float | None],
) -> dict[str, Any]:
    return {
        'ModelName': CONSENSUS,
        'ModelVersion': version,
        'TrainingAgeRange': list(limits),
        'Members': {
            member.name: {
                'Weight': weights[member.name],
                'ValidatedMAE': member.validation.mae,
                'ValidatedOn': member.validation.dataset,
                'ValidatedBy': member.validation.method,
                'ValidatedN': member.validation.n,
                'Version': (rows.get(member.name) or {}).get('model_version'),
            }
            for member in members
        },
        'Description': (
            'Mean of the predicted ages of the members, weighted by 1/MAE^2 of their validations.'
        ),
        'Limitations': (
            'The errors of the members may be of different people, and go together on one '
            'scan, so the consensus has no validated error. The limits of its interval are the '
            'weighted means of the limits of the members.'
        ),
    }


def _seen(rows: Sequence[Row]) -> str:
    return in_any_training(row['in_training'] for row in rows)


def _interval(row: Row) -> Interval | None:
    limits = (row['interval_low'], row['interval_high'], row['interval_level'])
    return None if None in limits else limits


def _carried(rows: Sequence[Row], extra: Sequence[str]) -> list[str]:
    """Return the flags of rows that hold for what is computed from them, each once."""
    found = [flag for row in rows for flag in (row['qc_flag'] or '').split(';') if flag]
    return list(dict.fromkeys([*(f for f in found if f not in OWN_FLAGS), *extra]))


def _empty(
    scan: Scan, name: str, version: str, inputs: Sequence[Row | None], extra: Sequence[str]
) -> Row:
    """Return a row without an age, with the flags that say why."""
    known = [row for row in inputs if row is not None]
    failed = any(row['status'] == 'failed' for row in known)
    flags = _carried([row for row in known if row['status'] != 'ok'], extra)
    return brainage_row(
        **scan_columns(scan),
        model=name,
        model_version=version,
        qc_flag=';'.join(flags or [MEMBER_MISSING]),
        status='failed' if failed else 'skipped',
    )


def _row(
    scan: Scan,
    name: str,
    version: str,
    age: float,
    sd: float | None,
    interval: Interval | None,
    limits: tuple[float | None, float | None],
    corrected: float | None,
    flags: Sequence[str],
) -> Row:
    low, high, level = interval or (None, None, None)
    return brainage_row(
        **scan_columns(scan),
        model=name,
        model_version=version,
        predicted_age=age,
        predicted_age_sd=sd,
        interval_low=low,
        interval_high=high,
        interval_level=level,
        predicted_age_corrected=corrected,
        in_training_range=in_training_range(scan.age.years, limits),
        qc_flag=';'.join(flags) or None,
        status='ok',
    )
