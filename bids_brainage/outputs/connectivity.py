"""The connectivity matrices of a session in the output dataset, for models that take one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.names import derivative_path, parse_name
from bids_brainage.outputs.files import read_json


@dataclass(frozen=True)
class Connectivity:
    """What a model gets of the functional images of a session.

    Attributes
    ----------
    path : Path or None
        Table of Pearson correlations.
    without : str
        Why there is none; empty if there is one.
    """

    path: Path | None
    without: str = ''


def matrix_path(
    output_dir: Path, entities: Mapping[str, str], space: str, atlas: str, stat: str
) -> Path:
    """Return the connectivity table of a functional run.

    Parameters
    ----------
    output_dir : Path
        Output dataset.
    entities : mapping
        Entities of the raw series.
    space, atlas : str
        Labels of the space and of the atlas.
    stat : str
        ``pearsoncorrelation`` or ``fisherz``.
    """
    named = {**entities, 'space': space, 'atlas': atlas, 'stat': stat, 'suffix': 'relmat'}
    return output_dir / derivative_path({**named, 'extension': '.tsv'}, 'func')


def count_regions(path: Path) -> int:
    """Return how many regions a connectivity table has."""
    with path.open(encoding='utf-8') as stream:
        header = stream.readline().rstrip('\n').split('\t')
    return len(header) - (header[0] == 'name')


def session_matrices(
    output_dir: Path, subject: str, session: str | None, atlas: str
) -> list[Path]:
    """Return the tables of Pearson correlations of a session that are there, by name.

    Parameters
    ----------
    output_dir : Path
        Output dataset.
    subject, session : str or None
        Labels.
    atlas : str
        Label of the atlas.
    """
    folder = output_dir / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'func'
    wanted = {'atlas': atlas, 'stat': 'pearsoncorrelation'}
    return [
        path
        for path in sorted(folder.glob('*_relmat.tsv'))
        if wanted.items() <= parse_name(path.name).items()
    ]


def choose_connectivity(
    paths: Sequence[Path], n_nodes: int, atlas: str, severe: Sequence[str]
) -> Connectivity:
    """Choose what a model gets of the matrices of a session; for training and prediction.

    Parameters
    ----------
    paths : sequence of Path
        Tables of the session, over the regions of one atlas.
    n_nodes : int
        Regions that the model takes.
    atlas : str
        Label of the atlas, for the message.
    severe : sequence of str
        See `choose_matrix`.
    """
    best = choose_matrix(paths, severe)
    if best is None:
        return Connectivity(None, 'no BOLD series of its session could be processed')
    if (found := count_regions(best)) != n_nodes:
        return Connectivity(
            None,
            f'the model takes the correlations of {n_nodes} regions, the atlas {atlas} has '
            f'{found}; choose its atlas with --atlas',
        )
    return Connectivity(best)


def choose_matrix(paths: Sequence[Path], severe: Sequence[str] = ()) -> Path | None:
    """Choose one matrix of a session with several runs.

    Parameters
    ----------
    paths : sequence of Path
        Tables with side files.
    severe : sequence of str
        Quality flags that speak against a run.

    Returns
    -------
    Path or None
        A run without a severe flag before one with; then rest before other tasks; then the run
        with most degrees of freedom; then the first by name.
    """

    def rank(path: Path) -> tuple[bool, bool, float, str]:
        side: dict[str, Any] = read_json(path.with_suffix('.json'))
        flagged = any(flag in severe for flag in side.get('QualityFlags', []))
        other = not parse_name(path.name).get('task', '').lower().startswith('rest')
        return flagged, other, -float(side.get('DegreesOfFreedom', 0)), path.name

    return min(paths, key=rank, default=None)
