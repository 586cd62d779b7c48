"""What a bundle's metadata must say, and what follows from it, without any weights.

The fields are those of the MONAI bundle specification plus what a brain-age model has to
declare to be used honestly: its input space, its training ages, its measured accuracy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.dataset.header import SAME_GRID_MM
from bids_brainage.errors import BundleError
from bids_brainage.inputs.kinds import KINDS, MODALITIES, age_kinds, kind_of

SCHEMA = 'bids_brainage-bundle-1'
SITE_SPREAD = 'site_spread'
"""Key of ``training`` that harmonising needs: variances between and within sites."""

STATUSES = ('trained', 'untrained')
SALIENCY_METHODS = ('contribution', 'gradcam', 'guided_backprop', 'attention')

_TEXT = (str,)
_OPTIONAL_TEXT = (str, type(None))
_NUMBER = (int, float)
_OPTIONAL_NUMBER = (int, float, type(None))

_FIELDS: dict[str, tuple[type, ...]] = {
    'schema': _TEXT,
    'name': _TEXT,
    'version': _TEXT,
    'arch': _TEXT,
    'arch_options': (dict,),
    'status': _TEXT,
    'title': _TEXT,
    'description': _TEXT,
    'intended_use': _TEXT,
    'limitations': _TEXT,
    'license': _TEXT,
    'copyright': _TEXT,
    'reference': (dict,),
    'reference.text': _TEXT,
    'reference.doi': _OPTIONAL_TEXT,
    'changelog': (dict,),
    'monai_version': _OPTIONAL_TEXT,
    'pytorch_version': _OPTIONAL_TEXT,
    'numpy_version': _OPTIONAL_TEXT,
    'input': (dict,),
    'input.kind': _TEXT,
    'input.space': _OPTIONAL_TEXT,
    'input.voxel_size_mm': (list, type(None)),
    'input.shape': (list,),
    'input.affine': (list, type(None)),
    'input.orientation': _OPTIONAL_TEXT,
    'input.normalisation': _TEXT,
    'input.skull_stripped': (bool, type(None)),
    'output': (dict,),
    'output.quantity': _TEXT,
    'output.unit': _TEXT,
    'output.kind': _TEXT,
    'network_data_format': (dict,),
    'training': (dict,),
    'training.data': _TEXT,
    'training.simulated': (bool,),
    'training.n': (int,),
    'training.age_min': _OPTIONAL_NUMBER,
    'training.age_max': _OPTIONAL_NUMBER,
    'training.age_mean': _OPTIONAL_NUMBER,
    'training.sex_female_fraction': _OPTIONAL_NUMBER,
    'training.sites': (list,),
    'training.recipe': (dict,),
    'validation': (list,),
    'bias_correction': (dict, type(None)),
    'conformal': (dict, type(None)),
    'saliency': (list,),
    'tolerance_years': _NUMBER,
    'golden': (dict,),
    'golden.seed': (int,),
    'golden.age': _NUMBER,
    'weights_sha256': _TEXT,
    'config_hash': _TEXT,
    'package_version': _TEXT,
}
_TABLE_KEYS: dict[str, tuple[str, ...]] = {
    'validation': ('dataset', 'n', 'mae', 'bias', 'r', 'median_baseline_mae', 'method'),
    'bias_correction': ('slope', 'intercept', 'n', 'source'),
    'conformal': ('level', 'half_width_years', 'n', 'source'),
}
_ABSENT = object()


def _lookup(metadata: Mapping[str, Any], dotted: str) -> Any:
    value: Any = metadata
    for key in dotted.split('.'):
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _field_problems(metadata: Mapping[str, Any]) -> list[str]:
    problems = []
    for dotted, types in _FIELDS.items():
        value = _lookup(metadata, dotted)
        names = ' or '.join('null' if t is type(None) else t.__name__ for t in types)
        if value is _ABSENT:
            problems.append(f'`{dotted}` is missing (expected {names})')
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            problems.append(f'`{dotted}` is {type(value).__name__}, expected {names}')
    return problems


def _value_problems(metadata: Mapping[str, Any]) -> list[str]:
    problems = []
    allowed: dict[str, Sequence[str]] = {
        'schema': (SCHEMA,),
        'status': STATUSES,
        'input.kind': age_kinds(),
        'output.quantity': ('age',),
        'output.unit': ('year',),
        'output.kind': ('scalar', 'bins'),
    }
    for dotted, values in allowed.items():
        if _lookup(metadata, dotted) not in values:
            problems.append(f'`{dotted}` must be one of {", ".join(values)}')
    name, arch = metadata['name'], metadata['arch']
    if not name.startswith(f'{arch}.') or name == f'{arch}.':
        problems.append(f'`name` is {name!r}, expected `{arch}.<tag>`')
    unknown = set(metadata['saliency']) - set(SALIENCY_METHODS)
    if unknown:
        problems.append(f'`saliency` names unknown methods {sorted(unknown)}')
    if metadata['tolerance_years'] <= 0:
        problems.append('`tolerance_years` must be positive')
    return problems


def _input_problems(declared: Mapping[str, Any]) -> list[str]:
    problems = []
    kind = KINDS.get(declared['kind'])
    if kind is None:  # told with the values
        return []
    volume = not kind.is_table
    shape = declared['shape']
    if (
        (volume and len(shape) != 3)
        or not shape
        or any(not isinstance(n, int) or n < 1 for n in shape)
    ):
        problems.append(f'`input.shape` is {shape}, expected positive integers, three for images')
    if volume and len(declared['voxel_size_mm'] or []) != 3:
        problems.append('`input.voxel_size_mm` must have three values')
    if volume and declared['orientation'] != 'RAS':
        problems.append('`input.orientation` must be RAS')
    if kind.takes_graph and not isinstance(declared.get('n_nodes'), int):
        problems.append('`input.n_nodes` is missing for a connectivity model')
    segmentation = declared.get('segmentation')
    if kind.is_segmented and (
        not isinstance(segmentation, Mapping)
        or not {'name', 'weights_sha256'} <= set(segmentation)
    ):
        problems.append('`input.segmentation` must hold `name` and `weights_sha256`')
    if kind.elsewhere and not (declared.get('programs') and declared.get('features')):
        problems.append('`input.programs` and `input.features` must name what is taken')
    if not isinstance(declared.get('structural_only', False), bool):
        problems.append('`input.structural_only` must be true or false')
    if declared.get('modality', 't1w') not in MODALITIES:
        problems.append(f'`input.modality` must be {" or ".join(MODALITIES)}')
    if declared['affine'] is not None and np.shape(declared['affine']) != (4, 4):
        problems.append('`input.affine` must be 4 x 4 or null')
    return problems


def _table_problems(metadata: Mapping[str, Any]) -> list[str]:
    problems = []
    for field, keys in _TABLE_KEYS.items():
        value = metadata[field]
        rows = value if isinstance(value, list) else [value] if value is not None else []
        for row in rows:
            missing = [key for key in keys if key not in row]
            if missing:
                problems.append(f'`{field}` lacks {", ".join(missing)}')
    training = metadata['training']
    own = metadata['status'] == 'trained' and 'converted_from' not in metadata
    if own and (training['n'] < 1 or training['age_min'] is None or training['age_max'] is None):
        problems.append('a trained bundle must state `training.n`, `age_min` and `age_max`')
    return problems


def _curve_problems(metadata: Mapping[str, Any]) -> list[str]:
    curves = metadata['training'].get('reference_curves')
    kind = KINDS.get(metadata['input']['kind'])
    elsewhere = kind is not None and kind.elsewhere
    if curves is None:
        needed = elsewhere and metadata['status'] == 'trained'
        return ['`training.reference_curves` is missing'] if needed else []
    what = 'features' if elsewhere or 'features' in curves else 'contributions'
    expected = '`training.reference_curves` must hold '
    if not isinstance(curves, Mapping) or not {'age', what} <= set(curves):
        return [f'{expected}`age` and `{what}`']
    try:
        ages, found = (np.asarray(curves[key], dtype=float) for key in ('age', what))
    except (TypeError, ValueError):
        return [expected + 'a list of numbers and one for each feature']
    n = metadata['input']['shape'][0]
    if ages.ndim != 1 or len(ages) < 2 or not (np.diff(ages) > 0).all():
        return [expected + 'two or more ascending ages']
    if found.shape != (n, len(ages)):
        return [f'{expected}{n} x {len(ages)} {what}, found {found.shape}']
    return _spread_problems(metadata['training'].get(SITE_SPREAD), n)


def _spread_problems(spread: Mapping[str, Any] | None, n: int) -> list[str]:
    if spread is None:
        return []
    lengths = [len(spread.get(key, ())) for key in ('between', 'within')]
    if lengths == [n, n] and min(spread['between']) >= 0 and min(spread['within']) > 0:
        return []
    return [f'`training.{SITE_SPREAD}` must hold {n} variances `between` and `within`']


def _interval_problems(conformal: Mapping[str, Any] | None) -> list[str]:
    """Check the half widths by predicted age, which a calibration may carry."""
    widths = (conformal or {}).get('by_predicted_age')
    if widths is None:
        return []
    expected = '`conformal.by_predicted_age` must hold '
    if not isinstance(widths, Mapping) or not {'age', 'half_width_years'} <= set(widths):
        return [expected + '`age` and `half_width_years`']
    try:
        ages, years = (np.asarray(widths[key], dtype=float) for key in ('age', 'half_width_years'))
    except (TypeError, ValueError):
        return [expected + 'lists of numbers']
    if ages.ndim != 1 or ages.shape != years.shape or not len(ages):
        return [f'{expected}equally long lists, found {ages.shape} and {years.shape}']
    if not (np.diff(ages) > 0).all() or not ((years > 0) & np.isfinite(years)).all():
        return [expected + 'increasing ages and positive half widths']
    return []


def metadata_problems(metadata: Mapping[str, Any]) -> list[str]:
    """Return everything that is missing or wrong in a bundle's metadata.

    Parameters
    ----------
    metadata : mapping
        The content of ``metadata.json``.

    Returns
    -------
    list of str
        One sentence per problem, empty when the metadata are complete.
    """
    problems = _field_problems(metadata)
    if problems:
        return problems
    return (
        _value_problems(metadata)
        + _input_problems(metadata['input'])
        + _table_problems(metadata)
        + _curve_problems(metadata)
        + _interval_problems(metadata['conformal'])
    )


def config_hash(metadata: Mapping[str, Any]) -> str:
    """Hash what decides how weights turn an image into an age.

    Parameters
    ----------
    metadata : mapping
        Bundle metadata; only ``arch``, ``arch_options``, ``input`` and ``output`` count.

    Returns
    -------
    str
        SHA-256 of their canonical JSON, 64 hexadecimal digits.
    """
    relevant = {key: metadata[key] for key in ('arch', 'arch_options', 'input', 'output')}
    text = json.dumps(relevant, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _described(kind: str, form: str, shape: Sequence[int], name: str) -> dict[str, Any]:
    return {
        'type': kind,
        'format': form,
        'num_channels': 1,
        'spatial_shape': list(shape),
        'dtype': 'float32',
        'value_range': [],
        'is_patch_data': False,
        'channel_def': {'0': name},
    }


def network_data_format(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the MONAI field of that name for an ``input`` block of bundle metadata."""
    image = _described('image', 'magnitude', declared['shape'], declared['kind'])
    return {
        'inputs': {'image': image | {'modality': 'MR'}},
        'outputs': {'pred': _described('age', 'year', (), 'age')},
    }


def check_volume(
    declared: Mapping[str, Any], shape: Sequence[int], affine: npt.ArrayLike, source: str
) -> None:
    """Refuse a volume that is not on the grid for which a model was made.

    Parameters
    ----------
    declared : mapping
        The ``input`` block of a bundle's metadata.
    shape : sequence of int
        Array shape of the volume (X, Y, Z), RAS+ axes.
    affine : array_like, (4, 4)
        Voxel-to-world matrix of the volume, millimetres.
    source : str
        Name of the file, for the message.

    Raises
    ------
    BundleError
        When the shape differs, a voxel size differs by more than 1e-3 mm, the axes are not
        RAS+, or the declared affine (if any) differs by more than 1e-3 mm.
    """
    matrix = np.asarray(affine, dtype=float)
    advice = 'Resample it to the grid of the model, or choose another model.'
    if tuple(shape) != tuple(declared['shape']):
        raise BundleError(
            f'{source}: shape {tuple(shape)}, but the model expects {tuple(declared["shape"])}. '
            f'{advice}'
        )
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(sizes - declared['voxel_size_mm']).max() > SAME_GRID_MM:
        raise BundleError(
            f'{source}: voxel size {sizes.round(4).tolist()} mm, but the model expects '
            f'{declared["voxel_size_mm"]} mm. {advice}'
        )
    if (np.abs(matrix[:3, :3]).argmax(axis=0) != range(3)).any() or (
        np.diag(matrix)[:3] <= 0
    ).any():
        raise BundleError(f'{source}: axes are not RAS+. Reorient the image before prediction.')
    if declared['affine'] is not None and (
        np.abs(matrix - np.asarray(declared['affine'], dtype=float)).max() > SAME_GRID_MM
    ):
        raise BundleError(
            f'{source}: affine differs from that of the model (space {declared["space"]}). '
            f'{advice}'
        )


def golden_input(metadata: Mapping[str, Any]) -> tuple[npt.NDArray[np.float32], ...]:
    """Make the input on which a bundle's expected age was recorded.

    The main array is ``golden.scale`` (default 1) times uniform [0, 1) noise from
    ``numpy.random.default_rng(golden.seed)``, the same on every machine.  A connectivity
    model also gets the correlation matrix of ``n_nodes`` white-noise series of 200 points,
    drawn next from the same generator.

    Parameters
    ----------
    metadata : mapping
        Bundle metadata; ``input`` and ``golden`` are read.

    Returns
    -------
    tuple of ndarray, float32
        ``(1, 1, X, Y, Z)``; then ``(1, N, N)`` for a model that takes connectivity.  For one that
        takes a table a single array ``(1, *shape)``.
    """
    declared, golden = metadata['input'], metadata['golden']
    rng = np.random.default_rng(golden['seed'])
    kind = kind_of(declared)
    lead = (1,) if kind.is_table else (1, 1)
    noise = rng.random((*lead, *declared['shape']), dtype=np.float32)
    main = (noise * np.asarray(golden.get('scale', 1.0))).astype(np.float32)
    if not kind.takes_graph:
        return (main,)
    series = rng.standard_normal((declared['n_nodes'], 200))
    return main, np.asarray(np.corrcoef(series), dtype=np.float32)[None]
