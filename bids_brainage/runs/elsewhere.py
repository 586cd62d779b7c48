"""What other programs measured, in a participant-level run: visits, models, and what is left.

No image is prepared for these ages and no workflow is built: a prediction takes milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.places import DEFAULT_BY_PROGRAM, DEFAULT_MODELS
from bids_brainage.config import Config
from bids_brainage.dataset.measured import MeasuredScan, find_measured
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import OptionError
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.runs.ledger import Ledger
from bids_brainage.runs.shifts import Harmonisation

LOG = logging.getLogger('bids_brainage')


@dataclass(frozen=True)
class Elsewhere:
    """Visits that other programs measured.

    Attributes
    ----------
    scans : tuple of MeasuredScan
        Those that a model takes.
    bundles : tuple of Bundle
        Models of such measures.
    todo : tuple of (MeasuredScan, bundles)
        What has no result yet.
    harmonisation : Harmonisation
        What brings them to the scale of the models.
    """

    scans: tuple[MeasuredScan, ...] = ()
    bundles: tuple[Bundle, ...] = ()
    todo: tuple[tuple[MeasuredScan, tuple[Bundle, ...]], ...] = ()
    harmonisation: Harmonisation = field(default_factory=Harmonisation)

    @property
    def n_ages(self) -> int:
        """How many predictions there are when all is done."""
        return sum(takes(bundle, scan) for scan in self.scans for bundle in self.bundles)

    def lines(self) -> list[str]:
        """Say what there is to do, for a dry run."""
        if not self.scans:
            return []
        lines = [f'{len(self.scans)} tables of other programs, {len(self.todo)} to do:']
        return lines + [todo_line(scan, [b.name for b in bundles]) for scan, bundles in self.todo]


def todo_line(scan: Scan, names: Sequence[str]) -> str:
    """Say, for a dry run, what is to be made of a scan."""
    age = 'age unknown' if scan.age.years is None else f'age {scan.age.years:g}'
    return f'  {scan.relative}  ({age})  → {", ".join(names)}'


def select_measured(config: Config, *, tell: bool = False) -> tuple[MeasuredScan, ...]:
    """Find what other programs measured of the people that the options select.

    Parameters
    ----------
    config : Config
    tell : bool
        Log what is wrong with the tables of ages, which the search for images does else.
    """
    execution = config.execution
    return tuple(
        find_measured(
            execution.bids_dir,
            execution.derivatives,
            participants=execution.participant_label,
            sessions=execution.session_label,
            age_column=config.workflow.age_column,
            tell=tell,
        )
    )


def default_models(programs: Collection[str], *, images: bool) -> tuple[str, ...]:
    """Return the models that run without ``--models``.

    Parameters
    ----------
    programs : collection of str
        Programs whose tables there are.
    images : bool
        Whether there are images.

    Examples
    --------
    >>> default_models(('freesurfer', 'fastsurfer'), images=False)
    ('tables.openneuro',)
    """
    found = [name for program, name in DEFAULT_BY_PROGRAM.items() if program in programs]
    return tuple(dict.fromkeys([*(DEFAULT_MODELS if images else ()), *found])) or DEFAULT_MODELS


def takes(bundle: Bundle, scan: MeasuredScan) -> bool:
    """Return whether a model takes what was measured at a visit."""
    return kind_of(bundle.input).elsewhere and scan.program in bundle.input['programs']


def check_programs(bundles: Sequence[Bundle], programs: Collection[str], *, images: bool) -> None:
    """Refuse models for which there is nothing, and tell of tables that no model takes.

    Raises
    ------
    OptionError
        A model of tables has no tables, or a model of images no images.
    """
    known = {b.name: b.input['programs'] for b in bundles if kind_of(b.input).elsewhere}
    for name, wanted in known.items():
        if not set(wanted) & set(programs):
            raise OptionError(
                f'{name} takes tables of {" or ".join(wanted)}, and none were given. Give them '
                f'with --derivatives {wanted[0]}=PATH.'
            )
    others = [bundle.name for bundle in bundles if bundle.name not in known]
    if others and not images:
        raise OptionError(
            f'{", ".join(others)} takes images, and the dataset has none. Leave it out of '
            '--models.'
        )
    unused = set(programs) - {program for wanted in known.values() for program in wanted}
    if unused:
        LOG.warning('no model takes the tables of %s.', ', '.join(sorted(unused)))


def plan_elsewhere(
    measured: Sequence[MeasuredScan], bundles: Sequence[Bundle], ledger: Ledger
) -> Elsewhere:
    """Compare what is asked for with what stands in the output dataset."""
    own = tuple(bundle for bundle in bundles if kind_of(bundle.input).elsewhere)
    scans = tuple(scan for scan in measured if any(takes(bundle, scan) for bundle in own))
    brought = Harmonisation()
    if ledger.config.workflow.harmonise is not None:
        from bids_brainage.runs.harmonise import find_harmonisation

        brought = find_harmonisation(ledger.config, bundles)
    todo = []
    for scan in scans:
        left = tuple(
            b
            for b in own
            if takes(b, scan)
            and (
                scan.problem
                or not ledger.prediction(scan, b, shift=brought.shift_of(scan, b)).is_current
            )
        )
        if left:
            todo.append((scan, left))
    return Elsewhere(scans, own, tuple(todo), brought)
