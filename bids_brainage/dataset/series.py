"""Which functional series are processed, from what, and with which T1w image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError

if TYPE_CHECKING:
    from bids_brainage.dataset.derivatives import PreprocessedBold

BEST_ECHO_SECONDS = 0.03
"""Echo time near the T2* of grey matter at 3 T, where the BOLD signal is strongest."""


@dataclass(frozen=True)
class Series:
    """One functional run and what it is made from.

    Attributes
    ----------
    scan : Scan
        The raw series.
    t1w : Scan or None
        T1w image to align it with; None if that is done already, or if there is none.
    ready : PreprocessedBold or None
        Preprocessed derivatives to use in its place.
    source : Path
        File that is read: the preprocessed series, else the raw one.
    source_uri : str
        Its BIDS URI.
    problem : str or None
        Why the series cannot be processed.
    note : str
        Why derivatives that were given are not used; empty if nothing is to be said.
    """

    scan: Scan
    t1w: Scan | None
    ready: PreprocessedBold | None
    source: Path
    source_uri: str
    problem: str | None = None
    note: str = ''


def match_series(
    bold: Iterable[Scan], t1w: Sequence[Scan], fmriprep: tuple[str, Path] | None = None
) -> list[Series]:
    """Choose for every run between derivatives and the raw series, and find its T1w image.

    Parameters
    ----------
    bold : iterable of Scan
        Raw series.
    t1w : sequence of Scan
        T1w images of the same participants.
    fmriprep : tuple of str and Path, optional
        Name and root of an fMRIPrep output.

    Returns
    -------
    list of Series
        One per run (several echoes are one run), in order of path.  A run that fMRIPrep has made
        in a standard space is taken from there; any other is processed with the T1w image of its
        session, else of the participant's first session that has one.
    """
    found = []
    for scan in one_echo(bold):
        note = ''
        if fmriprep is not None:
            from bids_brainage.dataset.derivatives import find_fmriprep_bold

            name, root = fmriprep
            try:
                ready = find_fmriprep_bold(root, scan)
            except MissingInputError as error:
                note = f'not taken from {name}, the raw series is used: {error}'
            else:
                uri = f'bids:{name}:{ready.bold.relative_to(root).as_posix()}'
                found.append(Series(scan, None, ready, ready.bold, uri))
                continue
        partner = anatomy_of(scan, t1w)
        problem = scan.problem
        if partner is None and problem is None:
            problem = (
                f'{scan.relative}: sub-{scan.subject} has no T1w image that can be read, which a '
                'series is aligned with. Add one, or give fMRIPrep derivatives with --derivatives.'
            )
        found.append(Series(scan, partner, None, scan.path, scan.uri, problem, note))
    return found


def anatomy_of(scan: Scan, t1w: Sequence[Scan]) -> Scan | None:
    """Return the T1w image of the same session, else the participant's first; None if none."""
    own = [s for s in t1w if s.subject == scan.subject and s.problem is None]
    same = [s for s in own if s.session == scan.session]
    return next(iter([*same, *own]), None)


def one_echo(bold: Iterable[Scan]) -> list[Scan]:
    """Keep one echo of every multi-echo run: the one nearest to 30 ms, else the second.

    Echo times are those of the side files, in seconds.
    """
    runs: dict[tuple[tuple[str, str], ...], list[Scan]] = {}
    for scan in bold:
        key = tuple((k, v) for k, v in scan.entities.items() if k != 'echo')
        runs.setdefault(key, []).append(scan)
    return [_best_echo(echoes) for echoes in runs.values()]


def _best_echo(echoes: Sequence[Scan]) -> Scan:
    times = [scan.metadata.get('EchoTime') for scan in echoes]
    known = [t for t in times if isinstance(t, int | float)]
    if len(known) < len(echoes):
        return echoes[min(1, len(echoes) - 1)]
    distance = [abs(t - BEST_ECHO_SECONDS) for t in known]
    return echoes[distance.index(min(distance))]
