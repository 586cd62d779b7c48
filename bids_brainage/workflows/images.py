"""Names of the images that the preprocessing of a T1w image leaves in the output dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.names import CBV_DESC, derivative_path
from bids_brainage.preprocessing.template import DEFAULT_SPACE

_IN_TEMPLATE = {'space': DEFAULT_SPACE, 'res': '1'}
IMAGES: dict[str, dict[str, str]] = {
    't1w': {**_IN_TEMPLATE, 'desc': 'preproc', 'suffix': 'T1w'},
    't1w_affine': {**_IN_TEMPLATE, 'desc': 'affine', 'suffix': 'T1w'},
    'mask': {**_IN_TEMPLATE, 'desc': 'brain', 'suffix': 'mask'},
    'tissues': {**_IN_TEMPLATE, 'suffix': 'dseg'},
    'structures': {**_IN_TEMPLATE, 'desc': 'structures', 'suffix': 'dseg'},
    'gm': {**_IN_TEMPLATE, 'label': 'GM', 'suffix': 'probseg'},
    'gm_modulated': {**_IN_TEMPLATE, 'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'},
    'mask_native': {'desc': 'brain', 'suffix': 'mask'},
    'regions': {'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg'},
    'to_template': {'from': 'T1w', 'to': DEFAULT_SPACE, 'mode': 'image', 'suffix': 'xfm'},
    'to_native': {'from': DEFAULT_SPACE, 'to': 'T1w', 'mode': 'image', 'suffix': 'xfm'},
}
"""Output of the anatomical workflow → what its file is called beside the scan's own entities."""

CBV, MAPS, SERIES = 'cbv', 'maps', 'series'
"""Further images: blood volume, explanation maps, preprocessed functional runs."""

KEPT = {
    'minimal': frozenset[str](),
    'standard': frozenset({'t1w', 'mask', 'mask_native', 'regions', CBV, MAPS}),
    'full': frozenset({*IMAGES, CBV, MAPS, SERIES}),
}
"""Level of output → the images that stay in the output dataset; tables and pages always do."""


def kept_images(config: Config) -> frozenset[str]:
    """Return the images that a run leaves in the output dataset (``--level``)."""
    return KEPT[config.execution.level]


def image_path(output_dir: Path, scan: Scan, image: str) -> Path:
    """Return where one of the `IMAGES` of a scan is written."""
    return output_dir / derivative_path({**scan.entities, **IMAGES[image]}, scan.datatype)


def cbv_path(output_dir: Path, scan: Scan) -> Path:
    """Return where the map of cerebral blood volume of a scan is written."""
    place = {**_IN_TEMPLATE, 'desc': CBV_DESC, 'suffix': 'T1w'}
    return output_dir / derivative_path({**scan.entities, **place}, scan.datatype)


def table_path(output_dir: Path, scan: Scan) -> Path:
    """Return the prediction table of a scan."""
    return _table(output_dir, scan, 'brainage')


def measures_path(output_dir: Path, scan: Scan) -> Path:
    """Return the table of what another program measured at a visit."""
    return _table(output_dir, scan, 'measures')


def map_path(output_dir: Path, scan: Scan, label: str, method: str) -> Path:
    """Return the explanation map of a visit on the labels of the program that measured it."""
    named = {**scan.entities, 'space': 'T1w', 'model': label, 'desc': method, 'suffix': 'saliency'}
    return output_dir / derivative_path(named, scan.datatype)


def volumes_path(output_dir: Path, scan: Scan) -> Path:
    """Return the table of volumes of a scan."""
    return _table(output_dir, scan, 'volumes')


def _table(output_dir: Path, scan: Scan, suffix: str) -> Path:
    named: dict[str, Any] = {**scan.entities, 'suffix': suffix, 'extension': '.tsv'}
    return output_dir / derivative_path(named, scan.datatype)
