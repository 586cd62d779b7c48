"""The group page: how accurate, how repeatable, and what differs between groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.outputs.files import write_text
from bids_brainage.outputs.group_tables import TABLES
from bids_brainage.reports.group_answers import comparison, correlations
from bids_brainage.reports.group_figures import Pages, model_figures, model_summary, page_of
from bids_brainage.reports.group_views import SHOWN_ROWS, TITLES, table_views
from bids_brainage.reports.page import fill_template
from bids_brainage.reports.wording import describe_flag

if TYPE_CHECKING:
    import pandas as pd

PAGE = 'group.html'


@dataclass(frozen=True)
class About:
    """Of which study and by which call the page was made.

    Attributes
    ----------
    study, date, version, command : str
        Empty where not known.
    pages : frozenset of str
        Pages of participants beside the group page, to which points and rows lead.
    """

    study: str = ''
    date: str = ''
    version: str = ''
    command: str = ''
    pages: Pages = frozenset()


def write_group_report(
    output_dir: str | Path,
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
    plots: Mapping[str, pd.DataFrame],
    maps: Mapping[str, list[dict[str, Any]]] | None = None,
    about: About | None = None,
) -> Path:
    """Write ``group.html``.

    Parameters
    ----------
    output_dir : path
        The output dataset.
    tables : mapping of str to DataFrame
        Group tables by name.
    analysis : mapping
        Facts of the analysis, with ``warnings``.
    plots : mapping of str to DataFrame
        Points and lines of the figures, see `bids_brainage.statistics.tables.points`.
    maps : mapping of str to list, optional
        Figures of the explanation maps by model.
    about : About, optional
        Study, date, version and command.
    """
    path = Path(output_dir) / PAGE
    write_text(path, render_group_page(tables, analysis, plots, maps, about))
    return path


def render_group_page(
    tables: Mapping[str, pd.DataFrame],
    analysis: Mapping[str, Any],
    plots: Mapping[str, pd.DataFrame],
    maps: Mapping[str, list[dict[str, Any]]] | None = None,
    about: About | None = None,
) -> str:
    """Render the page as self-contained HTML; see :func:`write_group_report`."""
    about = about or About()
    facts = {'warnings': [], **analysis}
    names = list(dict.fromkeys(tables['accuracy']['model'])) if len(tables['accuracy']) else []
    models = [
        {
            'id': f'model-{number}',
            'name': name,
            **model_summary(name, tables, facts),
            'figures': model_figures(name, plots, tables, about.pages),
            'maps': (maps or {}).get(name, []),
        }
        for number, name in enumerate(names, 1)
    ]
    views = [
        view
        for name in TITLES
        if name in TABLES and name in tables and _counted(name, tables[name])
        for view in table_views(name, tables[name], about.pages)
    ]
    return fill_template(
        'group',
        about=about,
        facts=facts,
        models=models,
        answer=comparison(tables, plots, facts, about.pages),
        correlations=correlations(tables, plots, about.pages),
        flagged=_flagged(tables['exclusions'], about.pages),
        tables=[view for view in views if view['rows']],
    )


def _counted(name: str, table: pd.DataFrame) -> bool:
    """Whether a table tells of anything: not of pairs of scans that nobody has."""
    column = {'longitudinal': 'n_pairs', 'reliability': 'n'}.get(name)
    return len(table) > 0 and (column is None or bool((table[column].fillna(0) > 0).any()))


def _flagged(exclusions: pd.DataFrame, pages: Pages) -> list[dict[str, str]]:
    """List the images that were left out because of flags or ratings, with these in words."""
    poor = exclusions[exclusions['reason'].astype(str).str.startswith(('flagged ', 'rated '))]
    found = []
    for row in poor.drop_duplicates('source').head(SHOWN_ROWS).to_dict('records'):
        cell = row['qc_flag'] if isinstance(row['qc_flag'], str) else ''
        words = [describe_flag(part.strip()).label for part in cell.split(';') if part.strip()]
        if row['reason'].startswith('rated '):
            words.insert(0, 'Rated: reject')
        name, session = row['participant_id'], row['session_id']
        found.append(
            {
                'name': f'{name} {session}' if isinstance(session, str) else name,
                'href': page_of(name, pages),
                'flags': ', '.join(words),
            }
        )
    return found
