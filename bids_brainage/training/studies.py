"""Datasets that train together, what each is for, and how its people are named beside others.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315), section 2.1:
cohorts that train, and cohorts that are kept for judging only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bids_brainage.errors import OptionError
from bids_brainage.training.splits import LONGITUDINAL, RETEST, UNSEEN, Item
from bids_brainage.tsv import is_missing, read_given_tsv

COLUMNS = ('cohort', 'role', 'bids_dir', 'output_dir')
TRAIN = 'train'
ROLES = {TRAIN: '', UNSEEN: UNSEEN, RETEST: RETEST, LONGITUDINAL: LONGITUDINAL}
"""Role in the table -> the role that all scans of the cohort have in a split; '' is dealt out."""

MARK = '+'
"""Between cohort and label in the label of a person of another dataset; BIDS allows it."""

_OWN = 'bids:raw:'
_NAME = re.compile(r'[0-9A-Za-z]+')


@dataclass(frozen=True)
class Study:
    """A raw dataset with what the participant level made of it.

    Attributes
    ----------
    name : str
        Of the cohort; empty for the dataset of the command line if no table names it.
    role : str
        See `ROLES`, the values; empty where recipe and split decide.
    bids_dir, output_dir : Path
        Both datasets.
    own : bool
        Whether it is the dataset of the command line, whose people keep their labels.
    """

    name: str
    role: str
    bids_dir: Path
    output_dir: Path
    own: bool = False

    def named(self, item: Item) -> Item:
        """Return a scan under its name beside those of other datasets.

        Examples
        --------
        >>> scan = Item('bids:raw:sub-01/anat/sub-01_T1w.nii.gz', '01', None, 40.0)
        >>> found = Study('IXI', 'unseen', Path('a'), Path('b')).named(scan)
        >>> found.participant, found.source, found.cohort
        ('IXI+01', 'bids:IXI:sub-01/anat/sub-01_T1w.nii.gz', 'IXI')
        """
        cohort = self.name or item.cohort
        if self.own:
            return replace(item, cohort=cohort, role=self.role or item.role)
        return replace(
            item,
            source=f'bids:{self.name}:{item.source.removeprefix(_OWN)}',
            participant=f'{self.name}{MARK}{item.participant}',
            cohort=cohort,
            role=self.role or item.role,
        )


def study_of(participant: str) -> tuple[str, str]:
    """Return cohort and label of a person; the cohort of the command line's dataset is ''.

    Examples
    --------
    >>> study_of('IXI+01'), study_of('01')
    (('IXI', '01'), ('', '01'))
    """
    name, mark, label = participant.partition(MARK)
    return (name, label) if mark else ('', participant)


def find_studies(table: Path | None, bids_dir: Path, output_dir: Path) -> list[Study]:
    """Return the datasets of a training: that of the command line, and those of the table.

    Parameters
    ----------
    table : Path or None
        With the columns `COLUMNS`; folders may be relative to the folder of the table.  A row with
        the dataset of the command line gives it a name and a role.
    bids_dir, output_dir : Path
        Of the command line.

    Raises
    ------
    OptionError
        The table is not as expected; all problems together.
    """
    own = Study('', '', bids_dir, output_dir, own=True)
    if table is None:
        return [own]
    rows = _rows(table)
    problems: list[str] = []
    studies = [_study(table.parent, row, own, problems) for row in rows]
    for what in ('name', 'bids_dir', 'output_dir'):
        values = [str(getattr(study, what)) for study in studies]
        double = sorted({value for value in values if values.count(value) > 1})
        if double:
            problems.append(f'{", ".join(double)} stands in several rows.')
    if problems:
        raise OptionError(f'--cohorts {table}: {" ".join(problems)}')
    return studies if any(study.own for study in studies) else [own, *studies]


def _rows(table: Path) -> list[dict[str, str]]:
    rows = read_given_tsv('--cohorts', table)
    absent = [name for name in COLUMNS if not rows or name not in rows[0]]
    if absent:
        raise OptionError(
            f'--cohorts {table}: expected one row for each dataset and the columns '
            f'{", ".join(COLUMNS)}, separated by tabs; found no {", ".join(absent)}.'
        )
    return rows


def _study(folder: Path, row: dict[str, str], own: Study, problems: list[str]) -> Study:
    """Check one row; problems are added to the list."""
    name, role = row['cohort'], row['role']
    if not _NAME.fullmatch(name) or name == 'raw':
        problems.append(f'cohort: expected letters and digits, and not raw, found {name!r}.')
    if role not in ROLES:
        problems.append(f'role of {name}: expected {", ".join(ROLES)}, found {role!r}.')
    places = {column: (folder / row[column]).resolve() for column in ('bids_dir', 'output_dir')}
    for column, place in places.items():
        if is_missing(row[column]) or not place.is_dir():
            problems.append(f'{column} of {name}: {row[column]!r} is not a folder.')
    mine = places['bids_dir'] == own.bids_dir.resolve()
    if mine and places['output_dir'] != own.output_dir.resolve():
        problems.append(
            f'output_dir of {name}: expected {own.output_dir} as on the command line, found '
            f'{places["output_dir"]}.'
        )
    return Study(name, ROLES.get(role, ''), **places, own=mine)
