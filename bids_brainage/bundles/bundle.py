"""Bundles: weights that travel with everything needed to use and to judge them.

A bundle is a folder ``<arch>.<tag>/`` with ``metadata.json`` and ``model.safetensors``.
Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import bids_brainage
from bids_brainage.bundles.contract import (
    SCHEMA,
    config_hash,
    golden_input,
    metadata_problems,
    network_data_format,
)
from bids_brainage.errors import BundleError
from bids_brainage.models.registry import create_model, list_models, model_info

METADATA_FILE = 'metadata.json'
WEIGHTS_FILE = 'model.safetensors'
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Bundle:
    """A model with its weights on disk; nothing is loaded until it is asked for.

    Attributes
    ----------
    path : Path
        The bundle's folder.
    metadata : dict
        Content of ``metadata.json``.
    """

    path: Path
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """Registry name ``<arch>.<tag>``."""
        return str(self.metadata['name'])

    @property
    def arch(self) -> str:
        """Name of the architecture."""
        return str(self.metadata['arch'])

    @property
    def label(self) -> str:
        """The name reduced to letters and digits, as in the ``model-`` entity."""
        return ''.join(c for c in self.name if c.isascii() and c.isalnum())

    @property
    def version(self) -> str:
        """Version of the weights."""
        return str(self.metadata['version'])

    @property
    def status(self) -> str:
        """``'trained'`` or ``'untrained'``."""
        return str(self.metadata['status'])

    @property
    def input(self) -> dict[str, Any]:
        """Input contract: kind, space, grid, normalisation."""
        return dict(self.metadata['input'])

    @property
    def weights_sha256(self) -> str:
        """Declared SHA-256 of the weights file."""
        return str(self.metadata['weights_sha256'])

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS_FILE

    def tensors(self) -> Tensors:
        """Return all weights as numpy arrays, in the stored precision."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self.weights_path)
        except (SafetensorError, OSError) as error:
            raise BundleError(
                f'{self.weights_path}: not a readable safetensors file ({error}). '
                'Install the bundle again.'
            ) from error

    def instantiate(self, device: str = 'cpu') -> Any:
        """Build the model with the bundle's weights, ready for prediction.

        Parameters
        ----------
        device : str
            Torch device (ignored by numpy models).

        Returns
        -------
        torch.nn.Module
            In eval mode, float32 whatever the stored precision; the caller's random state
            is left alone.  A numpy architecture returns its own callable estimator.

        Raises
        ------
        BundleError
            When the weights do not fit the architecture.
        """
        if model_info(self.arch).backend == 'numpy':
            estimator = create_model(self.arch, **self.metadata['arch_options'])
            estimator.load_tensors(self.tensors())
            return estimator
        import torch

        with torch.random.fork_rng(devices=[]):
            model = create_model(self.arch, **self.metadata['arch_options'])
        state = {key: torch.from_numpy(value) for key, value in self.tensors().items()}
        state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise BundleError(
                f'{self.weights_path}: the weights do not fit architecture {self.arch!r} with '
                f'options {self.metadata["arch_options"]}: {error}'
            ) from error
        return model.eval().to(device)


def _sha256(path: Path) -> str:
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA_FILE
    try:
        metadata = json.loads(file.read_text('utf-8'))
    except FileNotFoundError as error:
        raise BundleError(
            f'{path}: no {METADATA_FILE} here. A bundle is a folder with {METADATA_FILE} and '
            f'{WEIGHTS_FILE}.'
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f'{file}: not readable as JSON ({error}).') from error
    if not isinstance(metadata, dict):
        raise BundleError(f'{file}: expected a JSON object, found {type(metadata).__name__}.')
    return metadata


def load_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Open a bundle without importing torch.

    Parameters
    ----------
    path : path-like
        The bundle's folder.
    verify : bool
        Compare the SHA-256 of the weights file with the declared one.

    Returns
    -------
    Bundle
        With complete metadata of a known architecture.

    Raises
    ------
    BundleError
        When a file is absent, a field is missing or wrong, the architecture is unknown, the
        folder is named otherwise than the bundle, or the weights were altered.
    """
    folder = Path(path)
    metadata = _read_metadata(folder)
    problems = metadata_problems(metadata)
    if problems:
        raise BundleError(f'{folder / METADATA_FILE}: {"; ".join(problems)}.')
    bundle = Bundle(folder, metadata)
    if bundle.arch not in list_models():
        raise BundleError(
            f'{folder}: unknown architecture {bundle.arch!r}; known: {", ".join(list_models())}. '
            'A newer version of the package may be needed.'
        )
    if folder.resolve().name != bundle.name:
        raise BundleError(f'{folder}: the bundle is called {bundle.name!r}; rename the folder.')
    if not bundle.weights_path.is_file():
        raise BundleError(f'{bundle.weights_path}: absent. Install the bundle again.')
    if verify:
        found = _sha256(bundle.weights_path)
        if found != bundle.weights_sha256:
            raise BundleError(
                f'{bundle.weights_path}: SHA-256 is {found}, expected {bundle.weights_sha256}. '
                'The weights are damaged or were altered; install the bundle again.'
            )
    return bundle


def find_bundles(model_dirs: Iterable[Path | str]) -> dict[str, Path]:
    """Return name and folder of every bundle below the given folders.

    The first folder that holds a name wins; absent folders are skipped.
    """
    found: dict[str, Path] = {}
    for directory in map(Path, model_dirs):
        if directory.is_dir():
            for child in sorted(directory.iterdir()):
                if not child.name.startswith('.') and (child / METADATA_FILE).is_file():
                    found.setdefault(child.name, child)
    return dict(sorted(found.items()))


def resolve_bundle(name: str, model_dirs: Iterable[Path | str], verify: bool = True) -> Bundle:
    """Open the bundle of a name.

    Parameters
    ----------
    name : str
        ``<arch>.<tag>``.
    model_dirs : iterable of path-like
        Folders that hold bundles, searched in order.
    verify : bool
        See :func:`load_bundle`.

    Raises
    ------
    BundleError
        When there is none; the message lists those that exist and where was searched.
    """
    directories = [Path(directory) for directory in model_dirs]
    found = find_bundles(directories)
    if name in found:
        return load_bundle(found[name], verify)
    searched = ', '.join(map(str, directories)) or 'nowhere'
    hint = (
        f' {name!r} is an architecture: give it as <arch>.<tag>, or train it first.'
        if name in list_models()
        else ''
    )
    raise BundleError(
        f'No model {name!r}. Available: {", ".join(found) or "none"} (searched {searched}).{hint}'
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numpy_tensors(source: Any, dtype: str) -> Tensors:
    state = source.state_dict() if hasattr(source, 'state_dict') else source
    tensors: Tensors = {}
    for key, value in state.items():
        array = value.detach().cpu().numpy() if hasattr(value, 'detach') else np.asarray(value)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(dtype)
        tensors[key] = np.ascontiguousarray(array)
    return tensors


def _completed(metadata: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    """Fill in what the exporter knows better than its caller."""
    torch_used = model_info(metadata['arch']).backend == 'torch'
    full = {
        'changelog': {metadata['version']: 'First version.'},
        'monai_version': None,
        'network_data_format': network_data_format(metadata['input']),
        **metadata,
    }
    full |= {
        'schema': SCHEMA,
        'pytorch_version': _installed('torch') if torch_used else None,
        'numpy_version': np.__version__,
        'weights_sha256': sha256,
        'config_hash': config_hash(metadata),
        'package_version': bids_brainage.__version__,
    }
    return full


def golden_age(bundle: Bundle, device: str = 'cpu') -> float:
    """Return the age in years that the bundle predicts for its golden input."""
    inputs = golden_input(bundle.metadata)
    model = bundle.instantiate(device)
    if model_info(bundle.arch).backend == 'numpy':
        return float(np.ravel(model(*inputs))[0])
    import torch

    with torch.inference_mode():
        output = model(*(torch.from_numpy(array).to(device) for array in inputs))
    return float(output.reshape(-1)[0])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + '\n', 'utf-8')


def _fill(folder: Path, source: Any, metadata: Mapping[str, Any], dtype: str) -> None:
    from safetensors.numpy import save_file

    weights = folder / WEIGHTS_FILE
    save_file(_numpy_tensors(source, dtype), weights)
    weights.chmod(0o644)  # readable by everybody on a shared disk; safetensors makes it 0600
    full = _completed(metadata, _sha256(weights))
    if 'age' not in full['golden']:
        full['golden'] = {**full['golden'], 'age': golden_age(Bundle(folder, full))}
    problems = metadata_problems(full)
    if problems:
        raise BundleError(f'Bundle {metadata["name"]} not written: {"; ".join(problems)}.')
    _write_json(folder / METADATA_FILE, full)


def export_bundle(
    path: Path | str,
    model_or_tensors: Any,
    metadata: Mapping[str, Any],
    *,
    dtype: str = 'float32',
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle; the folder appears complete or not at all.

    Parameters
    ----------
    path : path-like
        The folder to make, ``.../<arch>.<tag>``.
    model_or_tensors : torch.nn.Module or mapping of str to array
        Source of the weights.
    metadata : mapping
        All fields of :mod:`bids_brainage.bundles.contract` except those filled in here:
        ``schema``, library versions, ``weights_sha256``, ``config_hash``,
        ``package_version``; and, unless given, ``changelog``, ``monai_version``,
        ``network_data_format`` and ``golden.age`` (computed on the CPU from the stored
        weights).
    dtype : str
        Stored precision of floating-point weights, ``'float32'`` or ``'float16'``.
    overwrite : bool
        Replace an existing bundle.

    Returns
    -------
    Bundle
        The bundle as it stands on disk.

    Raises
    ------
    BundleError
        When metadata are missing or wrong, or the folder exists.
    """
    folder = Path(path)
    if folder.exists() and not overwrite:
        raise BundleError(f'{folder}: exists already. Choose another tag, or remove it first.')
    for key in ('name', 'version', 'arch', 'arch_options', 'input', 'output', 'golden'):
        if key not in metadata:
            raise BundleError(f'{folder}: not written, metadata lack `{key}`.')
    temporary = folder.with_name(f'.{folder.name}.partial')
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _fill(temporary, model_or_tensors, metadata, dtype)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_bundle(folder)
