"""Errors that carry the exit status of the command line.

Every message says what went wrong, with which file, what was expected against what was
found, and what to do about it.  The numbers follow ``bids-standard/execution-spec``
(``src/outputs.md``).
"""

from __future__ import annotations


class BrainAgeError(Exception):
    """Base of all errors that a user can act on.

    Attributes
    ----------
    exit_code : int
        Process status with which the command line ends when this error stops a run.
    """

    exit_code = 1


class OptionError(BrainAgeError):
    """Options contradict each other, or the output folder holds other results."""

    exit_code = 2


class InvalidDatasetError(BrainAgeError):
    """The input folder is not a BIDS dataset that can be read."""

    exit_code = 16


class NothingSelectedError(BrainAgeError):
    """Labels or filters selected no image."""

    exit_code = 18


class UnusableImageError(BrainAgeError):
    """An image cannot be read or does not fulfil the input contract."""

    exit_code = 65


class MissingInputError(BrainAgeError):
    """A needed input (T1w, template, weights, participant-level output) is absent."""

    exit_code = 66


class WorkflowError(BrainAgeError):
    """The workflow graph could not be built (a bug of this package)."""

    exit_code = 70


class OutputError(BrainAgeError):
    """An output or work folder cannot be created or written."""

    exit_code = 73


class ReadWriteError(OutputError):
    """Reading or writing failed half way (disk full, quota, broken mount)."""

    exit_code = 74


class TemporaryError(BrainAgeError):
    """A resource (GPU memory, an image that another run works on) was busy; try again later."""

    exit_code = 75


class MissingExecutableError(BrainAgeError):
    """Programs that the workflow calls are not installed."""

    exit_code = 127


class BundleError(BrainAgeError):
    """A model bundle is incomplete, damaged, or does not fit its input."""

    exit_code = 66


class ProcessingError(BrainAgeError):
    """A processing step ran but its result failed its check."""

    exit_code = 65
