"""Which scans there are to train on: their ages, their derivatives, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.dataset.phenotype import phenotype_columns
from bids_brainage.dataset.scan import Scan
from bids_brainage.names import derivative_path
from bids_brainage.outputs.files import read_json
from bids_brainage.training.pairs import KIND, pair_problem
from bids_brainage.training.splits import Item

COHORT_COLUMNS = ('site', 'study', 'cohort', 'scanner', 'dataset')
RELMAT = '*_stat-pearsoncorrelation_relmat.tsv'


@dataclass(frozen=True)
class Candidate:
    """One T1w scan with what training needs to know of it.

    Attributes
    ----------
    item : Item
        Identity, age, sex and cohort; the age is NaN when unknown.
    files : dict of str to Path
        Derivatives by role, as `bids_brainage.inputs.arrays` wants them.
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
    reference: tuple[str, str] | None = None,
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
    reference : (column, value), optional
        Only people with this value are healthy; others are left out.

    Returns
    -------
    list of Candidate
        In the order of the scans.
    """
    wanted = [reference[0]] if reference else []
    columns = phenotype_columns(bids_dir, wanted, COHORT_COLUMNS)
    result = []
    for scan in scans:
        if scan.suffix != 'T1w':
            continue
        files = derivative_files(scan, output_dir, declared, modality)
        cohort = next(
            (text for name in COHORT_COLUMNS if (text := _look_up(columns.get(name, {}), scan))),
            '',
        )
        years = scan.age.years
        item = Item(
            source=scan.uri,
            participant=scan.subject,
            session=scan.session,
            age=float('nan') if years is None else years,
            sex=scan.sex or '',
            cohort=cohort,
        )
        if declared['kind'] == KIND:
            problem = pair_problem(files, output_dir) or _file_problem(files, output_dir)
        else:
            problem = (
                _age_problem(scan)
                or _file_problem(files, output_dir)
                or _segmentation_problem(files, declared)
            )
        if reference and _look_up(columns[reference[0]], scan) != reference[1]:
            problem = f'{NOT_HEALTHY} ({reference[0]} is not {reference[1]})'
        result.append(Candidate(item, files, problem))
    return result


NOT_HEALTHY = 'not of the reference group'


def derivative_files(
    scan: Scan, output_dir: Path, declared: Mapping[str, Any], modality: str = 't1w'
) -> dict[str, Path]:
    """Return where the derivatives that an input kind needs are, or should be."""
    kind, in_space = declared['kind'], {'space': declared['space'], 'res': '1'}

    def place(**entities: str) -> Path:
        return output_dir / derivative_path({**scan.entities, **entities}, 'anat')

    if kind == 'modulated_gm':
        gm = {'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'}
        return {'gm_modulated': place(**in_space, **gm)}
    if kind == 'region_volumes':
        regions = {'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg'}
        return {'region_volumes': place(**regions, extension='.json')}
    if kind == 't1w_clinical':
        return {'t1w_uncorrected': scan.path, 'mask_native': place(desc='brain', suffix='mask')}
    name = 'aicbv' if modality == 'aicbv' else 'affine'
    files = {'t1w': place(**in_space, desc=name, suffix='T1w')}
    if kind == KIND:
        files['cbv'] = place(**in_space, desc='aicbv', suffix='T1w')
    if kind == 't1w_connectivity':
        folder = output_dir / f'sub-{scan.subject}'
        folder = folder / f'ses-{scan.session}' if scan.session else folder
        found = sorted((folder / 'func').glob(RELMAT))
        files['connectivity'] = found[0] if found else folder / 'func' / f'sub-X{RELMAT[1:]}'
    return files


def problem_sentences(candidates: Sequence[Candidate], most: int = 5) -> list[str]:
    """Gather equal problems into one sentence each, with some of the scans."""
    groups: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.problem and not candidate.problem.startswith(NOT_HEALTHY):
            groups.setdefault(candidate.problem, []).append(candidate.item.source)
    sentences = []
    for problem, sources in groups.items():
        names = ', '.join(source.rpartition('/')[2] for source in sources[:most])
        more = f' and {len(sources) - most} more' if len(sources) > most else ''
        count = '1 scan' if len(sources) == 1 else f'{len(sources)} scans'
        sentences.append(f'{count}: {problem} ({names}{more})')
    if sentences:
        sentences.append(
            'To train without these scans, set on_problem = "leave_out" in [data] of --recipe.'
        )
    return sentences


def _age_problem(scan: Scan) -> str:
    if scan.age.problem:
        return f'{scan.age.problem}. Correct the table.'
    if scan.age.years is None:
        return 'no age. Add it to participants.tsv, the sessions or the scans table.'
    if scan.age.censored:
        return 'the age is only a lower limit (as 89+), which would teach too low an age.'
    return ''


def _file_problem(files: Mapping[str, Path], output_dir: Path) -> str:
    absent = [role for role, path in files.items() if not path.is_file()]
    if not absent:
        return ''
    for role in absent:
        others = sorted(files[role].parent.glob(_any_space(files[role].name)))
        if others:
            return (
                f'{role} is there in another space only, {others[0].name.split("_space-")[1]}: '
                'the model needs that of its bundle. Run the participant level with it.'
            )
    return (
        f'derivative {", ".join(absent)} is not in {output_dir}. Run the participant level first, '
        'with the same output folder.'
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


def _any_space(name: str) -> str:
    """Turn a file name into a pattern that any space fits."""
    head, mark, tail = name.partition('_space-')
    return f'{head}{mark}*_{tail.partition("_")[2]}' if mark else name


def _look_up(values: Mapping[tuple[str, str | None], str], scan: Scan) -> str:
    """Return a phenotype cell of a scan's person and session, empty if there is none."""
    who = f'sub-{scan.subject}'
    when = f'ses-{scan.session}' if scan.session else None
    return values.get((who, when)) or values.get((who, None)) or ''
