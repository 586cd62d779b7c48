"""System B's regressions that bundles carry, and the networks they combine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.facts import model_facts
from bids_brainage.bundles.regressions import TERMS, LinearFusion
from bids_brainage.errors import MissingInputError, ProcessingError

RICHEST_FIRST = ('TAS', 'TA', 'A', 'T')


@dataclass(frozen=True)
class Fusion:
    """Regressions of one bundle.

    Attributes
    ----------
    bundle : Bundle
        The bundle that carries them.
    networks : mapping
        ``t1w`` and ``aicbv`` → name of the network's bundle; one of them may be absent.
    regressions : mapping
        Formula → regression.
    conformal : mapping
        Formula → calibration of its interval.
    tested : mapping
        Formula → accuracy on held-out people.
    """

    bundle: Bundle
    networks: Mapping[str, str]
    regressions: Mapping[str, LinearFusion]
    conformal: Mapping[str, Mapping[str, Any]]
    tested: Mapping[str, Mapping[str, Any]]

    def row_name(self, formula: str) -> str:
        """Return the name of a regression in the column ``model``."""
        return f'{self.bundle.name}-{formula}'

    def best_tested(self) -> str | None:
        """Return the richest formula with an error on held-out people."""
        return next((f for f in RICHEST_FIRST if self.tested.get(f, {}).get('mae')), None)

    def check(self, formula: str) -> dict[str, Any]:
        """Return the accuracy of a regression as an entry of a bundle's ``validation``."""
        first: Mapping[str, Any] = next(iter(self.bundle.metadata['validation']), {})
        kept = {key: first.get(key, '') for key in ('dataset', 'method')}
        simulated = first.get('simulated', self.bundle.metadata['training']['simulated'])
        return {**kept, 'simulated': bool(simulated), **self.tested[formula]}

    def facts(self, formula: str, used: str) -> dict[str, Any]:
        """Return what the side file says of a regression."""
        fitted = self.regressions.get(used)
        facts = {
            **model_facts(self.bundle),
            'ModelName': self.row_name(formula),
            'Validation': [self.check(formula)] if formula in self.tested else [],
            'BiasCorrection': None,
            'Conformal': self.conformal.get(used),
            'Formula': used,
            'Networks': {t: self.networks[t] for t in TERMS[used] if t != 'sex'},
        }
        if fitted is not None:
            facts['Coefficients'] = dict(zip(fitted.terms, fitted.coefficients, strict=True))
            facts |= {'FittedOn': fitted.fitted_on, 'FittedN': fitted.n}
        if used != formula:
            facts['Note'] = f'sex is not known: {used} in place of {formula}'
        return facts


def partner_of(bundle: Bundle) -> tuple[str, str] | None:
    """Return name and weights hash of the network that a bundle's regressions also need."""
    partner = bundle.metadata.get('fusion', {}).get('partner')
    return (partner['name'], partner['weights_sha256']) if partner else None


def fusions_of(bundles: Sequence[Bundle]) -> list[Fusion]:
    """Return the regressions of a run.

    A network whose partner carries regressions of both gives no rows of its own regression.

    Raises
    ------
    MissingInputError
        A bundle's block is not readable.
    """
    partners = {partner[0] for partner in map(partner_of, bundles) if partner}
    found = []
    for bundle in bundles:
        block = bundle.metadata.get('fusion')
        if not block or bundle.name in partners:
            continue
        other = 'aicbv' if block['modality'] == 't1w' else 't1w'
        networks = {block['modality']: bundle.name}
        if partner := partner_of(bundle):
            networks[other] = partner[0]
        try:
            regressions = {
                formula: LinearFusion.from_dict(block['regressions'][formula])
                for formula in TERMS
                if formula in block['regressions']
                and {t for t in TERMS[formula] if t != 'sex'} <= set(networks)
            }
        except ProcessingError as error:
            raise MissingInputError(
                f'{bundle.path}: `fusion` of metadata.json: {error} Train or install it again.'
            ) from error
        found.append(
            Fusion(bundle, networks, regressions, block.get('conformal', {}), block['test'])
        )
    return found
