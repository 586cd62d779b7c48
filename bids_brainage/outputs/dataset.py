"""The files at the root of the output dataset, the same whichever job writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bids_brainage import __version__
from bids_brainage.errors import OptionError
from bids_brainage.outputs.files import read_json, write_json, write_text, write_tsv
from bids_brainage.outputs.tables import column_names, data_dictionary

NAME = 'bids_brainage'
BIDS_VERSION = '1.11.1'
CODE_URL = 'https://github.com/bids-apps/brainage'
TEMPLATEFLOW_URL = 'https://github.com/templateflow/templateflow'

BIDSIGNORE = (
    '*.html',
    'figures',
    'log',
    'group_*',
    '*_xfm.*',
    '*_brainage.*',
    '*_volumes.*',
    '*_measures.*',
    '*_saliency.*',
    '*_timeseries.*',
    '*_relmat.*',
)


@dataclass(frozen=True)
class Container:
    """Image the program runs in; ``kind`` is ``docker`` or ``apptainer``."""

    kind: str
    tag: str


@cache
def _resource(name: str) -> str:
    return (files('bids_brainage') / 'data' / name).read_text(encoding='utf-8')


def check_output(output_dir: str | Path, configuration_hash: str) -> None:
    """Refuse an output folder that was made with other options.

    Raises
    ------
    OptionError
        ``dataset_description.json`` names another program or another hash.
    """
    output_dir = Path(output_dir)
    path = output_dir / 'dataset_description.json'
    description = read_json(path)
    if not description:
        return
    generators = description.get('GeneratedBy') or [{}]
    name, found = generators[0].get('Name'), generators[0].get('ConfigurationHash')
    suggestion = output_dir.with_name(f'{output_dir.name}-{configuration_hash[:8]}')
    if name != NAME:
        raise OptionError(
            f'{output_dir} holds a dataset made by {name or "something else"} ({path}), expected '
            f'an empty folder or one made by {NAME}. Use another folder, for example '
            f'{suggestion}.'
        )
    if found != configuration_hash:
        raise OptionError(
            f'{output_dir} was made with options that give other images (configuration hash '
            f'{found} in {path}, {configuration_hash} now). Use the same options, or another '
            f'folder, for example {suggestion}.'
        )


def describe_dataset(
    output_dir: str | Path,
    bids_dir: str | Path,
    configuration_hash: str,
    *,
    derivatives: Mapping[str, str | Path] | None = None,
    container: Container | None = None,
) -> dict[str, Any]:
    """Build the content of ``dataset_description.json``.

    Parameters
    ----------
    output_dir, bids_dir : path
        Output and input dataset.
    configuration_hash : str
        Hash of the options that alter images.
    derivatives : mapping, optional
        Precomputed derivatives by name; each gets a ``GeneratedBy`` entry and a link.
    container : Container, optional
        Image in which this runs; omitted natively.
    """
    raw = read_description(bids_dir)
    generator: dict[str, Any] = {
        'Name': NAME,
        'Version': __version__,
        'CodeURL': f'{CODE_URL}/tree/{__version__}',
        'ConfigurationHash': configuration_hash,
    }
    if container is not None:
        generator['Container'] = {'Type': container.kind, 'Tag': container.tag}
    links = {'raw': link_to(bids_dir, output_dir), 'templateflow': TEMPLATEFLOW_URL}
    generators = [generator]
    for name, folder in sorted((derivatives or {}).items()):
        links[name] = link_to(folder, output_dir)
        made_by = (read_description(folder).get('GeneratedBy') or [{}])[0]
        generators.append(
            {'Name': name, **{k: v for k, v in made_by.items() if k in ('Version', 'CodeURL')}}
        )
    description: dict[str, Any] = {
        'Name': 'Brain age estimates',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': generators,
    }
    if doi := _bare_doi(raw.get('DatasetDOI')):
        description['SourceDatasets'] = [{'DOI': f'doi:{doi}', 'URL': f'https://doi.org/{doi}'}]
    description['DatasetLinks'] = links
    if isinstance(raw.get('License'), str) and raw['License'].strip():
        description['License'] = raw['License']
    description['HowToAcknowledge'] = (
        'Please cite the works listed in logs/CITATION.md (BibTeX: logs/CITATION.bib).'
    )
    return description


def write_dataset_files(
    output_dir: str | Path,
    bids_dir: str | Path,
    configuration_hash: str,
    *,
    derivatives: Mapping[str, str | Path] | None = None,
    container: Container | None = None,
) -> None:
    """Write description, read-me, ``.bidsignore`` and the meaning of ``desc-`` labels.

    Raises
    ------
    OptionError
        The folder holds results of other options (see `check_output`).
    OutputError
        The folder cannot be written.
    """
    root = Path(output_dir)
    check_output(root, configuration_hash)
    description = describe_dataset(
        root, bids_dir, configuration_hash, derivatives=derivatives, container=container
    )
    write_json(root / 'dataset_description.json', description)
    write_text(root / 'README.md', _resource('output_readme.md').format(version=__version__))
    write_text(root / '.bidsignore', '\n'.join(BIDSIGNORE))
    labels: dict[str, str] = json.loads(_resource('descriptions.json'))
    rows = [{'desc_id': f'desc-{label}', 'description': labels[label]} for label in sorted(labels)]
    write_tsv(root / 'descriptions.tsv', rows, column_names('descriptions'))
    write_json(root / 'descriptions.json', data_dictionary('descriptions'))


def link_to(target: str | Path, output_dir: str | Path) -> str:
    """Return the dataset link from the output to ``target``.

    Relative when the output lies inside the target (the pair can be moved together), else a
    ``file://`` URI.
    """
    target, output = Path(target).resolve(), Path(output_dir).resolve()
    if output.is_relative_to(target):
        return Path(os.path.relpath(target, output)).as_posix()
    return target.as_uri()


def read_description(folder: str | Path) -> dict[str, Any]:
    """Read a dataset's description; an absent or broken one reads as empty."""
    try:
        content = json.loads((Path(folder) / 'dataset_description.json').read_text('utf-8-sig'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@cache
def dataset_name(folder: Path) -> str:
    """Return the name of a dataset, that of its folder if it has none."""
    return str(read_description(folder).get('Name') or folder.name)


def _bare_doi(text: Any) -> str | None:
    """Reduce the usual spellings of a DOI to ``10.…``; None for anything else."""
    if not isinstance(text, str):
        return None
    bare = text.strip()
    for prefix in ('https://doi.org/', 'http://doi.org/', 'https://dx.doi.org/', 'doi:', 'DOI:'):
        bare = bare.removeprefix(prefix).strip()
    return bare if bare.startswith('10.') and '/' in bare else None
