"""Atlases for functional series: spheres around published coordinates, or label images."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_brainage.dataset.header import unreadable
from bids_brainage.errors import MissingInputError, OptionError, UnusableImageError
from bids_brainage.names import split_name
from bids_brainage.preprocessing.bold.names import (
    COORDINATE_ATLASES,
    DEFAULT_ATLAS,
    atlas_label,
    is_path,
)
from bids_brainage.preprocessing.template import templateflow_files

SPHERE_RADIUS_MM = 5.0

_HEMISPHERES = {'LH': 'L', 'RH': 'R', 'L': 'L', 'R': 'R'}
_COLUMNS = {
    'index': ('index', 'label_index', 'value', 'id'),
    'name': ('name', 'label', 'region', 'roi'),
    'network': ('network', 'network_label', 'network_name', 'community'),
    'hemisphere': ('hemisphere', 'hemi'),
}


@dataclass(frozen=True)
class Region:
    """One region of an atlas.

    Attributes
    ----------
    index : int
        Value in the label image, or number of the sphere, from 1.
    name, network : str
        Names; the network is empty if the atlas knows none.
    hemisphere : str
        ``L``, ``R`` or empty.
    xyz : tuple of float or None
        Centre in MNI RAS+ mm (spheres).
    radius_mm : float or None
        Radius of the sphere.
    """

    index: int
    name: str
    network: str = ''
    hemisphere: str = ''
    xyz: tuple[float, float, float] | None = None
    radius_mm: float | None = None

    def row(self) -> dict[str, object]:
        """Return the region as a row of the region table (``_dseg.tsv``)."""
        x, y, z = self.xyz or (None, None, None)
        return {
            'index': self.index,
            'name': self.name,
            'network': self.network or None,
            'hemisphere': self.hemisphere or None,
            'x': x,
            'y': y,
            'z': z,
            'radius': self.radius_mm,
        }


@dataclass(frozen=True)
class Atlas:
    """Regions in template space.

    Attributes
    ----------
    label : str
        Letters and digits, for ``atlas-`` in file names.
    title, reference : str
        For reports and side files; the reference is a DOI or where the file came from.
    regions : tuple of Region
    image : Path or None
        Label image; None for spheres.
    """

    label: str
    title: str
    reference: str
    regions: tuple[Region, ...]
    image: Path | None = None

    def networks(self) -> list[str]:
        """Return the network of every region (empty text where unknown)."""
        return [region.network for region in self.regions]

    def names(self) -> list[str]:
        """Return the name of every region."""
        return [region.name for region in self.regions]

    def description(self) -> dict[str, object]:
        """Return the content of ``atlas-<label>_description.json``."""
        kind = 'label image' if self.image else 'spheres around coordinates'
        return {
            'Name': self.title,
            'Regions': len(self.regions),
            'Definition': kind,
            'ReferencesAndLinks': [self.reference],
        }


@cache
def resolve_atlas(
    spec: str = DEFAULT_ATLAS,
    *,
    table: Path | None = None,
    space: str = 'MNI152NLin2009cAsym',
    download: bool = False,
) -> Atlas:
    """Return the atlas that a user named.

    Parameters
    ----------
    spec : str
        ``power2011``, ``dosenbach2010`` or ``seitzman2018``; the path of a label image; or a
        TemplateFlow label with optional description and resolution, as in
        ``Schaefer2018:desc-100Parcels7Networks:res-02``.
    table : Path, optional
        Region table of a label image; looked for beside the image when not given.
    space : str
        TemplateFlow label of the space the image is wanted in.
    download : bool
        Let TemplateFlow fetch an image that is not on this machine.

    Raises
    ------
    MissingInputError
        A file is absent, or TemplateFlow has no such atlas on this machine.
    OptionError
        The name is none of these.
    """
    if spec in COORDINATE_ATLASES:
        return coordinate_atlas(spec)
    if is_path(spec):
        return label_atlas(Path(spec), table or beside(Path(spec)))
    if re.fullmatch(r'[0-9a-zA-Z]+(:(desc|res|seg|scale)-[0-9a-zA-Z]+)*', spec):
        return _templateflow_atlas(spec, space, table, download)
    raise OptionError(
        f'Atlas {spec!r} is not known: expected {", ".join(COORDINATE_ATLASES)}, the path of a '
        'label image, or a TemplateFlow label such as Schaefer2018:desc-100Parcels7Networks.'
    )


def coordinate_atlas(name: str, *, radius_mm: float = SPHERE_RADIUS_MM) -> Atlas:
    """Return an atlas of spheres around coordinates that come with nilearn.

    Parameters
    ----------
    name : str
        ``power2011`` (264 spheres, doi:10.1016/j.neuron.2011.09.006, with the networks of its
        supplement), ``dosenbach2010`` (160, doi:10.1126/science.1194144) or ``seitzman2018`` (300,
        doi:10.1016/j.neuroimage.2019.116290).
    radius_mm : float
        Radius of all spheres.
    """
    from nilearn import datasets

    if name == 'power2011':
        rois = datasets.fetch_coords_power_2011().rois
        xyz = rois[['x', 'y', 'z']].to_numpy(float)
        networks = _power_networks()
        names = [f'{n}_{i}' for i, n in enumerate(networks, start=1)]
        title, doi = 'Power 2011, 264 functional areas', '10.1016/j.neuron.2011.09.006'
    elif name == 'dosenbach2010':
        bunch = datasets.fetch_coords_dosenbach_2010(ordered_regions=False)
        xyz = bunch.rois[['x', 'y', 'z']].to_numpy(float)
        names = [str(label) for label in bunch.labels]
        networks = [str(network) for network in bunch.networks]
        title, doi = 'Dosenbach 2010, 160 regions', '10.1126/science.1194144'
    else:
        bunch = datasets.fetch_coords_seitzman_2018(ordered_regions=False)
        xyz = bunch.rois[['x', 'y', 'z']].to_numpy(float)
        networks = [str(network) for network in bunch.networks]
        names = [f'{n}_{i}' for i, n in enumerate(networks, start=1)]
        title, doi = 'Seitzman 2018, 300 regions', '10.1016/j.neuroimage.2019.116290'
    regions = tuple(
        Region(index, label, network, _side(x), (float(x), float(y), float(z)), radius_mm)
        for index, (label, network, (x, y, z)) in enumerate(
            zip(names, networks, xyz, strict=True), start=1
        )
    )
    return Atlas(name, title, f'https://doi.org/{doi}', regions)


def label_atlas(path: Path, table: Path | None, *, label: str | None = None) -> Atlas:
    """Return the atlas of a label image.

    Parameters
    ----------
    path : Path
        3-D image in MNI space; 0 is background.
    table : Path or None
        TSV or CSV with ``index`` and ``name`` (``network``, ``hemisphere`` if known), or a text
        file with one name a line for the values 1, 2, ...  Without it regions are named by value.
    label : str, optional
        Letters and digits for file names; from the file's name when not given.

    Raises
    ------
    MissingInputError
        A file is absent.
    UnusableImageError
        The image is not 3-D with whole numbers, or has a region that the table does not name.
    """
    values = _label_values(path)
    named = {r.index: r for r in (read_region_table(table) if table else ())}
    if unnamed := [v for v in values if named and v not in named]:
        raise UnusableImageError(
            f'{path}: the values {unnamed[:10]} ({len(unnamed)} in all) have no row in {table}. '
            'Give the table of this very image.'
        )
    regions = _distinct([named.get(v, Region(v, f'region{v}')) for v in values])
    stem = label or atlas_label(str(path.absolute()))
    return Atlas(stem, stem, str(path.name), regions, path)


def read_region_table(path: Path) -> tuple[Region, ...]:
    """Read a region table (see `label_atlas`).

    Names of the form ``7Networks_LH_Vis_1`` or ``LH_Vis_1`` give hemisphere and network, too.

    Raises
    ------
    MissingInputError
        The file is absent.
    UnusableImageError
        It has neither an index and a name column nor plain names.
    """
    if not path.is_file():
        raise MissingInputError(f'{path}: the region table does not exist. Check the path.')
    text = path.read_text(encoding='utf-8-sig')
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = next((d for d in ('\t', ',') if lines and d in lines[0]), None)
    if delimiter is None:
        return tuple(_named(i, line.strip()) for i, line in enumerate(lines, start=1))
    rows = list(csv.reader(lines, delimiter=delimiter))
    place = {key: _column(rows[0], names) for key, names in _COLUMNS.items()}
    if place['index'] is None or place['name'] is None:
        raise UnusableImageError(
            f'{path}: found the columns {", ".join(rows[0])}; expected at least index and name, '
            'or a text file with one name a line.'
        )
    regions = []
    for row in rows[1:]:
        cells = {k: row[p].strip() for k, p in place.items() if p is not None and p < len(row)}
        try:
            index = int(float(cells['index']))
        except (KeyError, ValueError) as error:
            raise UnusableImageError(
                f'{path}: the row {row} has no whole number as index. Correct the table.'
            ) from error
        if index == 0:
            continue
        guess = _named(index, cells.get('name', ''))
        regions.append(
            Region(
                index,
                guess.name,
                _known(cells.get('network')) or guess.network,
                _HEMISPHERES.get(cells.get('hemisphere', '').upper()[:2], guess.hemisphere),
            )
        )
    return tuple(regions)


def beside(image: Path) -> Path | None:
    """Return the region table beside a label image: same stem ``.tsv``, ``.csv`` or ``.txt``."""
    stem = image.name.split('.', 1)[0]
    candidates = [image.with_name(stem + end) for end in ('.tsv', '.csv', '.txt')]
    candidates.append(image.with_name(stem.removesuffix('MNI') + 'NodeNames.txt'))
    # TemplateFlow keeps one table for all resolutions
    if name := split_name(image):
        bare = f'{name.stem(without=("res",))}_{name.suffix}.tsv'
        candidates.append(image.with_name(bare))
    return next((path for path in candidates if path.is_file()), None)


def _templateflow_atlas(spec: str, space: str, table: Path | None, download: bool) -> Atlas:
    name, *parts = spec.split(':')
    query = dict(part.split('-', 1) for part in parts)
    long = {'desc': 'desc', 'res': 'resolution', 'seg': 'segmentation', 'scale': 'scale'}
    wanted = {long[key]: value for key, value in query.items()}
    wanted.setdefault('resolution', '2')
    # atlases are published in few of the MNI spaces, which agree within a voxel or two
    spaces = dict.fromkeys((space, 'MNI152NLin2009cAsym', 'MNI152NLin6Asym'))
    tries = (templateflow_files(s, download, atlas=name, suffix='dseg', **wanted) for s in spaces)
    paths = next((found for found in tries if found), [])
    if len(paths) != 1:
        raise MissingInputError(
            f'TemplateFlow atlas {spec} in space {space}: {len(paths)} files on this machine, '
            'expected one. Name it fully (for example Schaefer2018:desc-100Parcels7Networks), '
            f'fetch it where there is network, or use {DEFAULT_ATLAS}, which needs no file.'
        )
    return label_atlas(paths[0], table or beside(paths[0]), label=atlas_label(spec))


def _label_values(path: Path) -> list[int]:
    if not path.is_file():
        raise MissingInputError(f'{path}: the atlas image does not exist. Check the path.')
    try:
        image: Any = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except unreadable() as error:
        raise UnusableImageError(f'{path} cannot be read as an image: {error}.') from error
    values = np.unique(data)
    if data.ndim != 3 or not np.allclose(values, np.round(values)) or values.min() < 0:
        raise UnusableImageError(
            f'{path}: expected a 3-D image of whole numbers from 0, found shape {data.shape} with '
            f'values {values.min():g} to {values.max():g}. Probability maps are no label image.'
        )
    return [int(v) for v in np.round(values) if v != 0]


def _distinct(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Add the index to names that occur twice: they head the columns of tables."""
    count = Counter(region.name for region in regions)
    return tuple(
        replace(r, name=f'{r.name}_{r.index}') if count[r.name] > 1 else r for r in regions
    )


def _power_networks() -> list[str]:
    source = files('bids_brainage').joinpath('data/atlas/power2011_networks.tsv')
    return [line.split('\t')[1] for line in source.read_text('utf-8').splitlines()[1:]]


def _named(index: int, name: str) -> Region:
    match = re.match(r'(?:\d+Networks_)?(LH|RH)_([A-Za-z]+)_', name + '_')
    if match is None:
        return Region(index, name)
    return Region(index, name, match[2], _HEMISPHERES[match[1]])


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    lowered = [cell.strip().lower() for cell in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _known(text: str | None) -> str:
    return '' if text is None or text.lower() in ('', 'n/a', 'nan') else text


def _side(x: float) -> str:
    return 'L' if x < -2 else 'R' if x > 2 else ''
