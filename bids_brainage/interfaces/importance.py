"""Write which regions and structures a model of two kinds of images relied on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import isdefined

from bids_brainage.names import derivative_path, parse_name
from bids_brainage.outputs.files import read_json, write_json, write_tsv
from bids_brainage.outputs.tables import data_dictionary

STRUCTURES = 'structures'
"""Label of the packaged structure atlas."""


def functional_facts(inputs: Any, prediction: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what the side file says about connectivity, and the flags of the run it is from.

    Parameters
    ----------
    inputs : traits
        Inputs of `bids_brainage.interfaces.prediction.SavePrediction`.
    prediction : dict
        Content of ``prediction.json``.

    Returns
    -------
    tuple of dict and list of str
        Empty for models that take one kind of image.
    """
    from bids_brainage.outputs.provenance import sha256_file

    fusion = prediction['fusion']
    if fusion is None:
        return {}, []
    facts: dict[str, Any] = {'Modality': fusion['modality'], 'FusionGate': fusion['gate']}
    if isdefined(inputs.without):
        return {**facts, 'Note': f'{prediction["note"]}: {inputs.without}'}, []
    if not isdefined(inputs.connectivity):
        return facts, []
    table = Path(inputs.connectivity)
    relative = table.relative_to(inputs.base_directory).as_posix()
    side = read_json(table.with_suffix('.json'))
    facts |= {'Connectivity': f'bids::{relative}', 'ConnectivitySHA256': sha256_file(table)}
    return facts, list(side.get('QualityFlags', []))


def sources_of(inputs: Any) -> list[str]:
    """Return the BIDS URIs of all that a prediction was made from."""
    return list(inputs.sources) if isdefined(inputs.sources) else [inputs.scan['source']]


def save_importances(inputs: Any, fusion: dict[str, Any] | None, bundle: Any) -> list[Path]:
    """Write node and structure importances as tables with their side files.

    Parameters
    ----------
    inputs : traits
        Inputs of `bids_brainage.interfaces.prediction.SavePrediction`.
    fusion : dict or None
        ``fusion`` of ``prediction.json``.
    bundle : Bundle

    Returns
    -------
    list of Path
        The tables.
    """
    written = []
    if fusion is not None and fusion['nodes'] and isdefined(inputs.atlas):
        label, rows = _node_rows(inputs, fusion['nodes'])
        written.append(_write(inputs, bundle, fusion, label, 'nodes', rows))
    if fusion is not None and fusion['structures']:
        written.append(
            _write(inputs, bundle, fusion, STRUCTURES, 'regions', _structure_rows(fusion))
        )
    return written


def _node_rows(inputs: Any, weights: list[float]) -> tuple[str, list[dict[str, Any]]]:
    from bids_brainage.preprocessing.bold.atlases import resolve_atlas

    table = Path(inputs.atlas_table) if isdefined(inputs.atlas_table) else None
    atlas = resolve_atlas(inputs.atlas, table=table)
    rows = [
        {
            'index': region.index,
            'name': region.name,
            'network': region.network or None,
            'importance': weight,
        }
        for region, weight in zip(atlas.regions, weights, strict=True)
    ]
    return atlas.label, _ranked(rows)


def _structure_rows(fusion: dict[str, Any]) -> list[dict[str, Any]]:
    from bids_brainage.preprocessing.atlas import load_structures

    found = fusion['structures']
    rows: list[dict[str, Any]] = [
        {'index': s.index, 'name': s.name, 'importance': _finite(found[s.name])}
        for s in load_structures()
    ]
    return _ranked(rows)


def _finite(value: float) -> float | None:
    return value if value == value else None


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the rank, 1 for the most important; regions without a value have none."""
    known = [row for row in rows if row['importance'] is not None]
    order = sorted(known, key=lambda row: (-row['importance'], row['index']))
    rank = {row['index']: place for place, row in enumerate(order, start=1)}
    return [{**row, 'rank': rank.get(row['index'])} for row in rows]


def _write(
    inputs: Any,
    bundle: Any,
    fusion: dict[str, Any],
    atlas: str,
    what: str,
    rows: list[dict[str, Any]],
) -> Path:
    entities = {
        **parse_name(inputs.source_file),
        'atlas': atlas,
        'model': bundle.label,
        'desc': what,
        'suffix': 'saliency',
        'extension': '.tsv',
    }
    target = Path(inputs.base_directory) / derivative_path(entities, entities['datatype'])
    columns = data_dictionary(f'importance_{what}')
    write_tsv(target, rows, list(columns))
    facts = {
        'Model': bundle.name,
        'WeightsSHA256': bundle.weights_sha256,
        'Modality': fusion['modality'],
        'FusionGate': fusion['gate'],
        'Sources': sources_of(inputs),
    }
    write_json(target.with_suffix('.json'), {**columns, **facts})
    return target
