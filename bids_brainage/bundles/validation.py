"""What a model's own metadata say about its error, and which statement counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SOURCE_LEFT_OUT = 'source left out'
"""Method of a validation on people of scanners from which the model has learnt nothing."""


@dataclass(frozen=True)
class Validation:
    """An error that a model was measured with.

    Attributes
    ----------
    mae : float
        Mean absolute error, years.
    n : int
        People.
    dataset : str
        Their name.
    simulated : bool
        Whether their images are simulated.
    method : str
        How they were kept apart from those whom the model has learnt from.
    """

    mae: float
    n: int
    dataset: str
    simulated: bool
    method: str = ''


def stated_validations(checks: object, simulated: bool) -> list[Validation]:
    """Return what a model states about its error.

    Parameters
    ----------
    checks : object
        ``validation`` of a bundle, a sequence of mappings; what states no positive error of at
        least one person is passed over, and so is anything else.
    simulated : bool
        Whether the training was simulated, for entries that do not say so themselves.
    """
    return [
        Validation(
            mae=float(check['mae']),
            n=int(check['n']),
            dataset=str(check.get('dataset', '')),
            simulated=bool(check.get('simulated', simulated)),
            method=str(check.get('method', '')),
        )
        for check in (checks if isinstance(checks, list | tuple) else [])
        if _states_error(check)
    ]


def leading_validation(
    checks: object, simulated: bool, method: str | None = None
) -> Validation | None:
    """Return the validation that speaks for a model, None without any.

    One on real scans counts before one on simulated scans, then the one with most people, the
    first of equals; of one `method` only, if it is given.  The other parameters are those of
    `stated_validations`.
    """
    known = [one for one in stated_validations(checks, simulated) if method in (None, one.method)]
    return max(known, key=lambda one: (not one.simulated, one.n), default=None)


def _states_error(check: Any) -> bool:
    if not isinstance(check, Mapping):
        return False
    mae, n = check.get('mae'), check.get('n')
    return isinstance(mae, int | float) and mae > 0 and isinstance(n, int) and n > 0
