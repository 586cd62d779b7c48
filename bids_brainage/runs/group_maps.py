"""Group explanation maps: whose maps are read, their means, files, table and pictures."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from bids_brainage.dataset.header import SAME_GRID_MM, unreadable
from bids_brainage.errors import BrainAgeError, UnusableImageError
from bids_brainage.names import (
    derivative_path,
    group_map_name,
    model_label,
    parse_name,
    side_file,
    source_path,
)
from bids_brainage.outputs.files import read_json, write_bytes, write_json, write_text
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.preprocessing.template import DEFAULT_SPACE

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.inference.saliency.group import GroupMap

log = logging.getLogger(__name__)

MAX_PEOPLE = 40
"""Most people of a decade whose maps are read for one model."""

COLUMNS = (
    *('model', 'method', 'age_bin', 'n', 'n_available', 'structure'),
    *('mean_abs', 'sd_abs', 'mean_signed', 'rank', 'unit'),
)
Array = np.ndarray


class Chosen(NamedTuple):
    """People whose maps are averaged: model, method label, decade, relative map paths."""

    model: str
    method: str
    age_bin: str
    paths: tuple[str, ...]
    n_available: int


@dataclass
class GroupMaps:
    """What was made of the maps.

    Attributes
    ----------
    table : DataFrame
        Strength by region, `COLUMNS`.
    figures : dict of str to list
        Figures of the page by model, ``title``, ``svg``, ``n`` and ``caption``.
    problems : list of (str, str)
        Relative path of each image that could not be used, and why.
    """

    table: pd.DataFrame
    figures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def choose_maps(
    table: pd.DataFrame, maps: Sequence[str], methods: Sequence[str] | None
) -> list[Chosen]:
    """Choose one map a person for each model, method and decade of age.

    It is that of the youngest age with a map, so no person counts twice.  Of more than
    `MAX_PEOPLE` people an even selection over the ages is taken.

    Parameters
    ----------
    table : DataFrame
        Predictions as read; rows that failed or whose age is missing or top-coded are left out.
    maps : sequence of str
        Relative paths of maps in template space.
    methods : sequence of str or None
        Wanted methods, all if None.
    """
    import pandas as pd

    from bids_brainage.statistics.bins import bin_index, bin_labels

    known = _by_image(maps, methods)
    age = pd.to_numeric(table['age'], errors='coerce').to_numpy(np.float64)
    usable = np.isfinite(age) & (table['status'].fillna('ok') == 'ok').to_numpy()
    if 'age_censored' in table:
        usable &= (table['age_censored'].astype(str).str.casefold() != 'true').to_numpy()
    decade = bin_index(np.where(usable, age, np.nan))
    cells = [table[c].tolist() for c in ('participant_id', 'source', 'model')]
    people: dict[tuple[str, str, int], list[str]] = {}
    seen: set[tuple[str, str, str]] = set()
    for k in np.argsort(age, kind='stable'):
        person, source, model = (column[k] for column in cells)
        for method, path in known.get((source_path(source), model_label(model)), ()):
            if decade[k] >= 0 and (person, model, method) not in seen:
                seen.add((person, model, method))
                people.setdefault((model, method, int(decade[k])), []).append(path)
    labels = bin_labels()
    return [
        Chosen(model, method, labels[k], _evenly(paths), len(paths))
        for (model, method, k), paths in sorted(people.items())
    ]


def make_group_maps(output_dir: Path, chosen: Sequence[Chosen]) -> GroupMaps:
    """Average the chosen maps, write them beside the group tables, and draw them.

    Writes ``group_age-*_saliency.nii.gz`` with side file and picture, and the mean T1w image of
    each decade; such files of an earlier run that are not made again are removed.  An image
    that cannot be read is left out.
    """
    import pandas as pd

    made = GroupMaps(pd.DataFrame(columns=list(COLUMNS)))
    written: set[str] = set()
    rows: list[dict[str, Any]] = []
    grid = _grid(output_dir, chosen)
    if grid is None:
        made.problems += [(p, 'is not a readable image') for c in chosen for p in c.paths]
        remove_maps(output_dir, written)
        return made
    atlas = _atlas(*grid)
    log.log(IMPORTANT, 'maps      reading %d explanation maps', sum(len(c.paths) for c in chosen))
    for age_bin in dict.fromkeys(c.age_bin for c in sorted(chosen, key=_by_age)):
        members = [c for c in chosen if c.age_bin == age_bin]
        log.info('Maps of %s years: reading %d', age_bin, sum(len(c.paths) for c in members))
        anatomy, files = _anatomy(output_dir, age_bin, members, grid, made.problems)
        written |= files
        for group in members:
            names, found = _one(output_dir, group, grid, atlas, anatomy, made)
            written |= names
            rows += found
    made.table = pd.DataFrame(rows, columns=list(COLUMNS))
    remove_maps(output_dir, written)
    return made


def remove_maps(output_dir: Path, keep: set[str]) -> None:
    """Remove group maps of an earlier run, except those of the given names."""
    for path in output_dir.glob('group_age-*'):
        if path.name not in keep and path.name.endswith(('.nii.gz', '.json', '.svg')):
            path.unlink()


def _one(
    output_dir: Path,
    group: Chosen,
    grid: tuple[tuple[int, ...], Array],
    atlas: Array,
    anatomy: Array,
    made: GroupMaps,
) -> tuple[set[str], list[dict[str, Any]]]:
    """Average, write and draw the maps of one model, method and decade."""
    from bids_brainage.inference.saliency.group import TOP_FRACTION, average_maps, strongest
    from bids_brainage.preprocessing.atlas import load_structures
    from bids_brainage.reports.group_maps import Cut, draw_group_map

    structures = load_structures()
    try:
        maps = _images(output_dir, group.paths, grid, made.problems)
        result = average_maps(maps, atlas, len(structures))
    except UnusableImageError:
        return set(), []
    side = read_json(side_file(output_dir / group.paths[0]))
    unit = str(side.get('Units') or 'arbitrary')
    cuts = {
        v: Cut(s.axis, s.index, _mm(grid[1], s.axis, s.index)) for v, s in result.slices.items()
    }
    name = _name(group.age_bin, group.paths[0])
    facts = {
        'Description': f'Mean over {result.n} people of {group.age_bin} years of the strongest '
        f'{100 * TOP_FRACTION:g} % (of the voxels of the grid) of the map of each person.',
        'Model': group.model,
        'Method': side.get('Method', group.method),
        'Units': unit,
        'NumberOfPeople': result.n,
        'NumberOfPeopleWithMap': group.n_available,
        'Resolution': side.get('Resolution'),
        'Slices': {
            v: {'Index': s.index, 'Position': cuts[v].position, 'Area': s.area}
            for v, s in result.slices.items()
        },
        'Sources': [f'bids::{path}' for path in group.paths],
    }
    title = f'Explanation map of {group.model}, {group.age_bin} years'
    svg = draw_group_map(strongest(result.mean), anatomy, cuts, unit, title)
    files = _write_image(output_dir, name, result.mean, grid[1], facts)
    write_text(output_dir / f'{name}.svg', svg)
    rows = _rows(group, result, unit, [s.name for s in structures])
    figure = _figure(group, result, svg, rows)
    made.figures.setdefault(group.model, []).append(figure)
    return {*files, f'{name}.svg'}, rows


def _figure(
    group: Chosen, result: GroupMap, svg: str, rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Lay out one figure of the page with a sentence of what it shows."""
    from bids_brainage.pictures.svg import sanitise
    from bids_brainage.preprocessing.atlas import structure_titles

    titles = structure_titles()
    top = sorted((r for r in rows if r['rank']), key=lambda r: int(r['rank']))[:3]
    names = [titles[r['structure']] for r in top]
    where = ', '.join(name[0].lower() + name[1:] for name in names)
    caption = f'Mean map on the mean T1w image. Strongest on average in: {where}.'
    if group.n_available > result.n:
        caption += f' An even selection of the {group.n_available} people with a map.'
    return {
        'title': f'Explanation map, {group.age_bin} years',
        'svg': sanitise(svg),
        'n': result.n,
        'caption': caption,
    }


def _rows(
    group: Chosen, result: GroupMap, unit: str, structures: Sequence[str]
) -> list[dict[str, Any]]:
    """Lay out the strength in every region, strongest first."""
    size = result.region_abs
    order = np.argsort(-np.nan_to_num(size, nan=-1.0), kind='stable')
    return [
        {
            **{'model': group.model, 'method': group.method, 'age_bin': group.age_bin},
            **{'n': result.n, 'n_available': group.n_available, 'structure': structures[k]},
            'mean_abs': float(size[k]),
            'sd_abs': float(result.region_sd[k]),
            'mean_signed': float(result.region_mean[k]),
            'rank': rank if np.isfinite(size[k]) else None,
            'unit': unit,
        }
        for rank, k in enumerate(order, 1)
    ]


def _anatomy(
    output_dir: Path,
    age_bin: str,
    members: Sequence[Chosen],
    grid: tuple[tuple[int, ...], Array],
    problems: list[tuple[str, str]],
) -> tuple[Array, set[str]]:
    """Average the T1w images of the people of a decade and write the mean."""
    from bids_brainage.inference.saliency.group import average_anatomy

    maps = dict.fromkeys(path for group in members for path in group.paths)
    paths = list(dict.fromkeys(_t1w_of(path) for path in maps))
    there = [path for path in paths if (output_dir / path).exists()]
    mean = average_anatomy(_images(output_dir, there, grid, problems), grid[0])
    if not mean.any():
        return mean, set()
    grid_of = {k: v for k, v in parse_name(there[0]).items() if k in ('space', 'res')}
    name = group_map_name(_label(age_bin), grid_of, 'T1w')
    facts = {
        'Description': f'Mean T1w image of {len(there)} people of {age_bin} years, each divided '
        'by the median of its brain.',
        'NumberOfPeople': len(there),
        'SkullStripped': True,
        'Sources': [f'bids::{path}' for path in there],
    }
    return mean, _write_image(output_dir, name, mean, grid[1], facts)


def _images(
    output_dir: Path,
    paths: Sequence[str],
    grid: tuple[tuple[int, ...], Array],
    problems: list[tuple[str, str]],
) -> Iterator[Array]:
    """Read images one by one; those that cannot be read or lie on another grid are left out."""
    for path in paths:
        try:
            data, affine = _load(output_dir / path)
        except BrainAgeError as error:
            problems.append((path, str(error)))
            continue
        if data.shape != grid[0] or not np.allclose(affine, grid[1], atol=SAME_GRID_MM):
            problems.append((path, f'is on another grid than the first map: {data.shape}'))
            continue
        yield data


def _load(path: Path) -> tuple[Array, Array]:
    """Read an image as float32 with its affine; values that are not numbers become 0."""
    import nibabel as nib

    try:
        image = cast('nib.Nifti1Image', nib.load(path))
        data = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.asarray(image.affine, dtype=float)
    except unreadable() as error:
        raise UnusableImageError(f'is not a readable image ({type(error).__name__})') from error
    return np.nan_to_num(data, copy=False, posinf=0.0, neginf=0.0), affine


def _grid(output_dir: Path, chosen: Sequence[Chosen]) -> tuple[tuple[int, ...], Array] | None:
    """Return shape and affine of the first map that can be read."""
    for path in (path for group in chosen for path in group.paths):
        try:
            data, affine = _load(output_dir / path)
        except BrainAgeError:
            continue
        return data.shape, affine
    return None


def _atlas(shape: tuple[int, ...], affine: Array) -> Array:
    """Return the most probable structure of each voxel of a template grid, 0 outside."""
    from bids_brainage.preprocessing.atlas import load_atlas
    from bids_brainage.preprocessing.transforms import grid_points, sample_image

    atlas = load_atlas()
    inside = atlas.priors.sum(axis=0) > 0.5
    labels = np.array([s.index for s in atlas.structures])[atlas.priors.argmax(axis=0)]
    stored = np.where(inside, labels, 0).astype(np.uint8)
    return sample_image(stored, atlas.affine, grid_points(shape, affine), order=0).reshape(shape)


def _write_image(
    output_dir: Path, name: str, data: Array, affine: Array, facts: dict[str, Any]
) -> set[str]:
    """Write an image and its side file; the same content gives the same bytes."""
    import nibabel as nib

    payload = nib.Nifti1Image(data.astype(np.float32), affine).to_bytes()
    write_bytes(output_dir / f'{name}.nii.gz', gzip.compress(payload, 3, mtime=0))
    write_json(output_dir / f'{name}.json', {k: v for k, v in facts.items() if v is not None})
    return {f'{name}.nii.gz', f'{name}.json'}


def _by_image(
    maps: Sequence[str], methods: Sequence[str] | None
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Sort maps by image and model label: method label and path of each."""
    wanted = None if methods is None else tuple(model_label(m) for m in methods)
    known: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path in maps:
        entities = parse_name(path)
        method = entities.get('desc', '')
        if (entities.get('space'), entities.get('res')) != (DEFAULT_SPACE, '1'):
            continue  # a copy in a further space
        if 'model' in entities and (wanted is None or method.startswith(wanted)):
            key = (source_path(path), entities['model'])
            known.setdefault(key, []).append((method, path))
    return known


def _t1w_of(path: str) -> str:
    """Path of the preprocessed T1w image on the grid of a map."""
    entities = {k: v for k, v in parse_name(path).items() if k != 'model'}
    return derivative_path({**entities, 'desc': 'preproc', 'suffix': 'T1w'}).as_posix()


def _evenly(paths: Sequence[str]) -> tuple[str, ...]:
    """Choose at most `MAX_PEOPLE` paths, evenly spaced."""
    if len(paths) <= MAX_PEOPLE:
        return tuple(paths)
    return tuple(paths[k] for k in np.linspace(0, len(paths) - 1, MAX_PEOPLE).astype(int))


def _name(age_bin: str, path: str) -> str:
    """Name of a group map without extension."""
    return group_map_name(_label(age_bin), parse_name(path), 'saliency')


def _label(age_bin: str) -> str:
    """Write a decade with letters and digits only: ``20to30``, ``90up``."""
    return age_bin.replace('-', 'to').replace('+', 'up')


def _by_age(chosen: Chosen) -> int:
    """Lower edge of a decade, for sorting."""
    return int(chosen.age_bin.rstrip('+').split('-')[0])


def _mm(affine: Array, axis: int, index: int) -> float:
    """World coordinate (mm) of a slice along its axis."""
    return float(affine[axis, axis] * index + affine[axis, 3])
