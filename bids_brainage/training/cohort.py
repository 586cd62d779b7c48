"""Which scans there are to train on: their ages, their derivatives, and what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bids_brainage.dataset.phenotype import (
    acquisition_days,
    phenotype_columns,
    site_of,
    value_of,
)
from bids_brainage.dataset.scan import Scan
from bids_brainage.flags import stop_flags
from bids_brainage.inputs.grey_matter import LEARNT, PROGRAM, maker_of
from bids_brainage.inputs.kinds import CONNECTIVITY, kind_of, learns_graph
from bids_brainage.names import SITE_COLUMNS, derivative_path
from bids_brainage.outputs.connectivity import (
    Connectivity,
    choose_connectivity,
    session_matrices,
)
from bids_brainage.outputs.files import read_json
from bids_brainage.preprocessing.bold.names import DEFAULT_ATLAS
from bids_brainage.preprocessing.quality import image_flags
from bids_brainage.training.pairs import pair_problem
from bids_brainage.training.splits import Item


@dataclass(frozen=True)
class Candidate:
    """One T1w scan with what training needs to know of it.

    Attributes
    ----------
    item : Item
        Identity, age, sex and cohort; the age is NaN when unknown.
    files : dict of str to Path
        Derivatives by role, see `bids_brainage.inputs.kinds.Files`.
    problem : str
        Why the scan cannot be used, with what to do; empty when it can.
    """

    item: Item
    files: dict[str, Path]
    problem: str = ''


def find_candidates(
    scans: Iterable[Scan],
    bids_dir: Path,
    output_dir: Path,
    declared: Mapping[str, Any],
    *,
    modality: str = 't1w',
    atlas: str = DEFAULT_ATLAS,
    reference: tuple[str, str] | None = None,
    exclude_flags: Collection[str] = (),
) -> list[Candidate]:
    """Find the derivatives of each scan and say what is wrong with it.

    Parameters
    ----------
    scans : iterable of Scan
        T1w scans; others are passed over.
    bids_dir, output_dir : Path
        Input dataset, and the output dataset of the participant level.
    declared : mapping
        The ``input`` block of the bundle to be trained.
    modality : str
        ``t1w``, or ``aicbv`` for System B's second network.
    atlas : str
        Label of the atlas whose connectivity is taken.
    reference : (column, value), optional
        Only people with this value are healthy; others are left out.
    exclude_flags : collection of str
        Flags of the image whose scans are left out; ``stop`` for all that say "do not use".

    Returns
    -------
    list of Candidate
        In the order of the scans.
    """
    wanted = [reference[0]] if reference else []
    columns = phenotype_columns(bids_dir, wanted, SITE_COLUMNS)
    scans = [scan for scan in scans if scan.suffix == 'T1w']
    days = acquisition_days(bids_dir, [scan.uri for scan in scans])
    result = []
    for scan in scans:
        files = derivative_files(scan, output_dir, declared, modality)
        problem = _problem(scan, files, output_dir, declared)
        if learns_graph(declared):
            graph = _connectivity(scan, output_dir, declared, atlas)
            problem = problem or graph.without
            files |= {} if graph.path is None else {CONNECTIVITY: graph.path}
        years = scan.age.years
        item = Item(
            source=scan.uri,
            participant=scan.subject,
            session=scan.session,
            age=float('nan') if years is None else years,
            sex=scan.sex or '',
            cohort=site_of(columns, scan),
            acq_days=days.get(scan.uri, float('nan')),
        )
        if reference and value_of(columns[reference[0]], scan) != reference[1]:
            problem = f'{NOT_HEALTHY} ({reference[0]} is not {reference[1]})'
        if not problem and (flags := _flags(scan, output_dir) & flags_that_exclude(exclude_flags)):
            problem = f'{FLAGGED} {", ".join(sorted(flags))}'
        result.append(Candidate(item, files, problem))
    return result


NOT_HEALTHY, FLAGGED, CLOSE = 'not of the reference group', 'flagged', 'too close in time'
"""How reasons start that are a choice, not a problem."""

STOP = 'stop'
"""Stands for all flags that say "do not use"."""


def derivative_files(
    scan: Scan, output_dir: Path, declared: Mapping[str, Any], modality: str = 't1w'
) -> dict[str, Path]:
    """Return where the derivatives of a scan that an input kind needs are, or should be."""
    paths = kind_of(declared).derivative_paths(scan.entities, declared['space'], modality)
    return {role: scan.path if path is None else output_dir / path for role, path in paths.items()}


GREY_MATTER = 'gm_modulated'
"""Role of the maps that CAT12 makes, too."""


def _connectivity(
    scan: Scan, output_dir: Path, declared: Mapping[str, Any], atlas: str
) -> Connectivity:
    """Return the connectivity that prediction would take, or why there is none."""
    from bids_brainage.preprocessing.bold.quality import severe_flags

    matrices = session_matrices(output_dir, scan.subject, scan.session, atlas)
    if not matrices:
        return Connectivity(
            None,
            f'no *_atlas-{atlas}_stat-pearsoncorrelation_relmat.tsv of its session is in '
            f'{output_dir}. Run the participant level first, with the same --atlas.',
        )
    return choose_connectivity(matrices, declared['n_nodes'], atlas, severe_flags())


def flags_that_exclude(names: Collection[str]) -> frozenset[str]:
    """Return the flags behind names of flags, ``stop`` among them or not."""
    every = stop_flags() if STOP in names else frozenset()
    return every | (frozenset(names) - {STOP})


def problem_sentences(candidates: Sequence[Candidate], most: int = 5) -> list[str]:
    """Gather equal problems into one sentence each, with some of the scans."""
    chosen = (NOT_HEALTHY, FLAGGED, CLOSE)
    sentences = _gathered([c for c in candidates if not c.problem.startswith(chosen)], most)
    if sentences:
        sentences.append(
            'To train without these scans, set on_problem = "leave_out" in [data] of --recipe.'
        )
    return sentences


def choice_sentences(candidates: Sequence[Candidate], most: int = 5) -> list[str]:
    """Say which scans the recipe leaves out, for their flags or for others of the person."""
    return _gathered([c for c in candidates if c.problem.startswith((FLAGGED, CLOSE))], most)


def keep_apart(candidates: Sequence[Candidate], years: float) -> list[Candidate]:
    """Leave out scans of a person that are not more than some years after the last one kept.

    Kim et al., npj Aging 2025 (doi:10.1038/s41514-025-00260-x): scans more than five years apart,
    else the earliest.

    Parameters
    ----------
    candidates : sequence of Candidate
        Those that cannot be used anyway stay as they are.
    years : float
        0 leaves nobody out.
    """
    if years == 0:
        return list(candidates)
    last: dict[str, float] = {}
    close: set[str] = set()
    for candidate in sorted(candidates, key=lambda c: (c.item.age, c.item.source)):
        if candidate.problem:
            continue
        person, age = candidate.item.participant, candidate.item.age
        if person in last and age - last[person] <= years:
            close.add(candidate.item.source)
        else:
            last[person] = age
    reason = f'{CLOSE}: not more than {years:g} years after another scan of the person'
    return [replace(c, problem=reason) if c.item.source in close else c for c in candidates]


def _gathered(candidates: Sequence[Candidate], most: int) -> list[str]:
    groups: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.problem:
            groups.setdefault(candidate.problem, []).append(candidate.item.source)
    sentences = []
    for problem, sources in groups.items():
        names = ', '.join(source.rpartition('/')[2] for source in sources[:most])
        more = f' and {len(sources) - most} more' if len(sources) > most else ''
        count = '1 scan' if len(sources) == 1 else f'{len(sources)} scans'
        sentences.append(f'{count}: {problem} ({names}{more})')
    return sentences


def _flags(scan: Scan, output_dir: Path) -> set[str]:
    """Return the flags of the image from the measures beside its prediction; none if unknown."""
    named = {**scan.entities, 'suffix': 'brainage', 'extension': '.json'}
    side = read_json(output_dir / derivative_path(named, scan.datatype))
    return set(image_flags(side.get('Quality') or {}))


def _age_problem(scan: Scan) -> str:
    if scan.age.problem:
        return f'{scan.age.problem}. Correct the table.'
    if scan.age.years is None:
        return 'no age. Add it to participants.tsv, the sessions or the scans table.'
    if scan.age.censored:
        return 'the age is only a lower limit (as 89+), which would teach too low an age.'
    return ''


def _problem(
    scan: Scan, files: Mapping[str, Path], output_dir: Path, declared: Mapping[str, Any]
) -> str:
    """Say why a scan cannot be used, apart from its connectivity; empty if it can."""
    unreadable = scan.problem if scan.path in files.values() else None
    absent = unreadable or _file_problem(scan, files, output_dir)
    if not kind_of(declared).gives_age:
        return pair_problem(files, output_dir) or absent
    other = _segmentation_problem(files, declared) if not absent else ''
    return _age_problem(scan) or absent or other or _maps_problem(files, declared)


def _file_problem(scan: Scan, files: Mapping[str, Path], output_dir: Path) -> str:
    absent = [path for path in files.values() if not path.is_file()]
    if not absent:
        return ''
    names = [path.name.replace(scan.stem, '*', 1) for path in absent]  # equal for all scans
    for path, name in zip(absent, names, strict=True):
        others = sorted(path.parent.glob(_any_space(path.name)))
        if others:
            return (
                f'{name} is there in another space only, {others[0].name.split("_space-")[1]}: '
                'the model needs that of its bundle. Run the participant level with it.'
            )
    return (
        f'{", ".join(names)} is not in {output_dir}. Run the participant level first, '
        'with the same output folder and --level full (the default).'
    )


def _segmentation_problem(files: Mapping[str, Path], declared: Mapping[str, Any]) -> str:
    """Say whether region volumes were measured by another network than the model's."""
    expected = declared.get('segmentation')
    if expected is None:
        return ''
    found = read_json(files['region_volumes']).get('Segmentation', {})
    weights = str(found.get('WeightsSHA256'))
    if weights == expected['weights_sha256']:
        return ''
    return (
        f'the regions were measured by {found.get("Name")} {found.get("Version")} with weights '
        f'{weights[:12]}, expected {expected["name"]} with weights '
        f'{expected["weights_sha256"][:12]}. Run the participant level again with this version.'
    )


def _maps_problem(files: Mapping[str, Path], declared: Mapping[str, Any]) -> str:
    """Say whether a map of grey matter was made by another program than most."""
    if GREY_MATTER not in files:
        return ''
    maker, most = maker_of(files[GREY_MATTER]), declared.get(LEARNT)
    if maker == most:
        return ''
    names = {None: 'this program', PROGRAM: 'CAT12'}
    return (
        f'its grey matter was made by {names[maker]}, that of most others by {names[most]}. Run '
        'the participant level on all of them with --derivatives cat12=PATH, or on all without.'
    )


def _any_space(name: str) -> str:
    """Turn a file name into a pattern that any space fits."""
    head, mark, tail = name.partition('_space-')
    return f'{head}{mark}*_{tail.partition("_")[2]}' if mark else name
