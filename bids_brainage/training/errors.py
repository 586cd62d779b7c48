"""Errors of training, each with all problems that were found."""

from __future__ import annotations

from collections.abc import Sequence

from bids_brainage.errors import BrainAgeError


class TrainingInputError(BrainAgeError):
    """The people or images cannot be trained on as they are.

    Parameters
    ----------
    problems : sequence of str
        One sentence for each, with what to do.
    """

    exit_code = 65

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = '\n'.join(f'  * {problem}' for problem in problems)
        super().__init__(f'Training was not started, because of the inputs:\n{lines}')
