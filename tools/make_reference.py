"""Write the reference pages of the documentation from the package itself.

python tools/make_reference.py           write docs/reference/generated
python tools/make_reference.py --check   end with 1 when a page is not up to date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import python_reference

from bids_brainage import errors
from bids_brainage.bundles.places import DEFAULT_MODELS
from bids_brainage.cli.parser import LEVELS, PROGRAM, build_parser

Row = list[str]

FOLDER = Path(__file__).parents[1] / 'docs' / 'reference' / 'generated'
MADE = '<!-- Made by tools/make_reference.py: change the program, then run it. -->\n'


def table(head: Row, rows: list[Row]) -> str:
    """Return a Markdown table; pipes in cells are escaped."""
    cells = [[cell.replace('|', '\\|').replace('\n', ' ') for cell in row] for row in rows]
    lines = [head, ['---'] * len(head), *cells]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def read(name: str) -> Any:
    """Return a JSON file of the package's data."""
    return json.loads((files('bids_brainage') / 'data' / name).read_text('utf-8'))


def code(text: str) -> str:
    """Mark text as code."""
    return f'`{text}`'


def options_page() -> str:
    """Return the options by group, as ``--help`` has them."""
    levels = ','.join(level.name for level in LEVELS)
    synopsis = f'{PROGRAM} bids_dir output_dir {{{levels}}} [options]'
    parts = [f'# Options\n\n```text\n{synopsis}\n```\n']
    for group in build_parser()._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        if not actions:
            continue
        title = (group.title or '').capitalize()
        rows = [[_spelling(action), plain(action.help or '')] for action in actions]
        parts.append(f'## {title}\n\n{table(["option", "meaning"], rows)}')
    return '\n'.join(parts)


def _spelling(action: argparse.Action) -> str:
    if not action.option_strings:
        return code(action.dest)
    names = ', '.join(code(text) for text in action.option_strings)
    if action.nargs == 0:
        return names
    value = action.metavar or action.dest.upper()
    return f'{names} {value}{" …" if action.nargs == "+" else ""}'


def plain(text: str) -> str:
    """Protect characters that mean something in Markdown, and mark options as code."""
    return re.sub(r'(--[a-z][a-z-]*)', r'`\1`', re.sub(r'([*<>_\[\]])', r'\\\1', text))


def columns_page() -> str:
    """Return every table of the output with its columns."""
    titles = {
        'brainage': '`*_brainage.tsv`: one row for each model',
        'sessions': '`sub-X_sessions.tsv`: one row for each session',
        'sessions_model': '`sub-X_sessions.tsv`: further columns for each model',
        'volumes': '`<src>_volumes.tsv`: one row for each region',
        'status': '`logs/<run>/status.tsv`: one row for each step of a run',
        'descriptions': '`descriptions.tsv`: meaning of the `desc-` labels',
    }
    parts = [
        '# Columns\n',
        'Tables are tab-separated; `n/a` means missing; ages are in years and not rounded. '
        'The JSON file beside each table says the same as this page.\n',
    ]
    for name, columns in read('columns.json').items():
        title = titles.get(name, f'`{name}.tsv`')
        rows = [
            [code(column), plain(entry['Description']) + _levels(entry), entry.get('Units', '')]
            for column, entry in columns.items()
        ]
        parts.append(f'## {title}\n\n{table(["column", "meaning", "unit"], rows)}')
    return '\n'.join(parts)


def _levels(entry: dict[str, Any]) -> str:
    levels = entry.get('Levels')
    if not levels:
        return ''
    return ' ' + '; '.join(f'{code(key)}: {plain(text)}' for key, text in levels.items()) + '.'


def flags_page() -> str:
    """Return the quality flags with thresholds and reasons."""
    parts = [
        '# Quality flags\n',
        'Short names in the column `qc_flag`, joined by `;`. *Stop* means: do not use this age '
        'before you have looked. *Caution* and *note* ask for less.\n',
    ]
    for name, flag in read('qc_flags.json').items():
        lines = [f'## `{name}`\n', f'**{flag["label"]}** ({flag["severity"]}). ']
        lines.append(f'{flag["explanation"]} {flag["advice"]}\n')
        if flag.get('threshold') is not None:
            lines.append(f'Threshold: {_threshold(flag)}. {flag["reason"]}\n')
        else:
            lines.append(f'{flag["reason"]}\n')
        parts.append('\n'.join(lines))
    return '\n'.join(parts)


def _threshold(flag: dict[str, Any]) -> str:
    value = flag['threshold']
    unit = flag.get('unit') or ''
    text = ' to '.join(f'{v:g}' for v in value) if isinstance(value, list) else f'{value:g}'
    return text if unit in ('', 'none') else f'{text} ({unit})'


def exit_codes_page() -> str:
    """Return the exit statuses with the errors that cause them."""
    rows = [
        ['0', 'Every requested item and report was written.'],
        ['1', 'At least one item or report failed; the others finished: `logs/<run>/status.tsv`.'],
    ]
    known = [k for k in vars(errors).values() if isinstance(k, type)]
    own = [k for k in known if issubclass(k, errors.BrainAgeError) and k.exit_code != 1]
    kinds = sorted(own, key=lambda kind: kind.exit_code)
    for status in dict.fromkeys(kind.exit_code for kind in kinds):
        texts = [(k.__doc__ or '').split('\n')[0] for k in kinds if k.exit_code == status]
        rows.append([str(status), ' '.join(texts)])
    return '# Exit codes\n\n' + table(['code', 'when'], rows)


def file_names_page() -> str:
    """Return the name patterns and the ``desc-`` labels."""
    spec = read('io_spec.json')
    described = [[code(k), v] for k, v in read('descriptions.json').items()]
    names = '\n'.join(spec['patterns'])
    return (
        '# File names\n\n'
        'Every file for one image is named by the first of these patterns that fits. Square '
        'brackets are parts that may be absent; `<src>` stands for the entities of the source '
        f'image:\n\n```text\n{spec["prefix"]}\n```\n\n```text\n{names}\n```\n\n'
        f'## Labels of `desc-`\n\n{table(["label", "meaning"], described)}'
    )


def models_page() -> str:
    """Return the packaged weights with what they state of themselves, and the architectures."""
    folder = files('bids_brainage') / 'data' / 'bundles'
    bundles = sorted(path.name for path in folder.iterdir() if path.is_dir())
    first = [name for name in bundles if name in DEFAULT_MODELS]
    parts = [
        '# Models\n',
        'Weights that travel with the program, and what they state of themselves: '
        f'{", ".join(code(name) for name in bundles)}. Which one to take for which scan: '
        '[choose a model](../../howto/choose-model.md). Errors are mean absolute errors in years, '
        'of people that were not used to fit, beside that of always answering their median age.\n',
    ]
    for name in dict.fromkeys([*first, *bundles]):
        parts.append(_model_part(read(f'bundles/{name}/metadata.json')))
    parts.append(f'## Architectures\n\nAll can be trained.\n\n{_architectures()}')
    return '\n'.join(parts)


def _model_part(facts: dict[str, Any]) -> str:
    """Describe one bundle."""
    training, default = facts['training'], facts['name'] in DEFAULT_MODELS
    people = 'generated people' if training['simulated'] else 'real people'
    ages = f'{training["age_min"]:.0f} to {training["age_max"]:.0f} years'
    rows = [
        [
            plain(check['dataset']),
            *(_figure(check.get(k)) for k in ('n', 'mae', 'bias', 'r', 'median_baseline_mae')),
            plain(check.get('method', '')),
        ]
        for check in facts['validation']
    ]
    head = ['people', 'n', 'error', 'bias', 'r', 'always the median', 'how']
    return '\n\n'.join(
        [
            f'## {code(facts["name"])}',
            f'**{plain(facts["title"])}**, version {facts["version"]}'
            + (', the default.' if default else '.'),
            plain(facts['description']),
            f'*For:* {plain(facts["intended_use"])}',
            f'*Not for:* {plain(facts["limitations"])}',
            f'*Fitted on:* {training["n"]:,} {people} of {ages}. '
            f'*Licence:* {plain(facts["license"])}.',
            table(head, rows),
        ]
    )


def _figure(value: float | None) -> str:
    return 'n/a' if value is None else f'{value:.4g}'


def _architectures() -> str:
    """Return the table of architectures."""
    rows = []
    for name, entry in read('architectures.json').items():
        source, shape = entry['reference'], entry['input'].get('shape')
        doi = source.get('doi')
        text = plain(source['text'])
        rows.append(
            [
                code(name),
                plain(entry['title']),
                f'[{text}](https://doi.org/{doi})' if doi else text,
                f'{code(entry["input"]["kind"])} {"×".join(map(str, shape)) if shape else ""}',
            ]
        )
    return table(['name', 'what it is', 'source', 'input'], rows)


def api_page() -> str:
    """Return what can be called from Python, with links to the source."""
    parts = [python_reference.INTRODUCTION]
    for title, modules in python_reference.API.items():
        rows = [
            [f'[{code(f"{module}.{name}")}](../../../{path})', plain(text)]
            for module, names in modules.items()
            for name, path, text in python_reference.summaries(module, names)
        ]
        parts.append(f'## {title}\n\n{table(["name in `bids_brainage`", "what it is"], rows)}')
    return '\n'.join(parts)


PAGES: dict[str, Callable[[], str]] = {
    'options.md': options_page,
    'columns.md': columns_page,
    'qc-flags.md': flags_page,
    'exit-codes.md': exit_codes_page,
    'file-names.md': file_names_page,
    'models.md': models_page,
    'api.md': api_page,
}


def stale_pages(folder: Path) -> list[str]:
    """Name the pages of a folder that are not what the program says now, or are not its own."""
    there = {path.name for path in folder.glob('*.md')}
    other = [
        name
        for name, page in PAGES.items()
        if name not in there or (folder / name).read_text('utf-8') != MADE + page()
    ]
    return sorted([*other, *(there - set(PAGES))])


def write_pages(folder: Path) -> None:
    """Write all pages; a file with the same content is left alone, other pages are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale_pages(folder):
        if name in PAGES:
            (folder / name).write_text(MADE + PAGES[name](), encoding='utf-8')
        else:
            (folder / name).unlink()


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or only look whether they are up to date."""
    parser = argparse.ArgumentParser(description='Write the reference pages.')
    parser.add_argument('--check', action='store_true', help='only compare')
    if not parser.parse_args(argv).check:
        write_pages(FOLDER)
        return 0
    stale = stale_pages(FOLDER)
    for name in stale:
        sys.stderr.write(f'{FOLDER / name} is not up to date: run tools/make_reference.py\n')
    return 1 if stale else 0


if __name__ == '__main__':
    sys.exit(main())
