"""How every HTML page is made from its template."""

from __future__ import annotations

from typing import Any

from bids_brainage.reports import wording


def fill_template(template: str, **content: Any) -> str:
    """Fill a template of ``data/report``.

    Texts are escaped unless the template marks them as markup; a name that the template uses and
    that was not given is an error.  Templates call the functions of
    `bids_brainage.reports.wording` as ``w``.

    Parameters
    ----------
    template : str
        Name of the page: ``participant``, ``group``, ``training``...
    **content
        What the template shows.

    Returns
    -------
    str
        Self-contained HTML.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('bids_brainage', 'data/report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['markup'] = jinja2.utils.markupsafe.Markup
    environment.globals['w'] = wording
    return environment.get_template(f'{template}.html.j2').render(**content)
