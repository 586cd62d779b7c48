"""Conformance suite for bundles, one's own or a third party's.

``python -m bids_brainage.bundles.check PATH`` prints one line per check and exits with 0 when
all passed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle, load_bundle
from bids_brainage.bundles.contract import check_volume, golden_input
from bids_brainage.errors import BrainAgeError, BundleError
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.models.registry import model_info


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check; `detail` says what was measured or what is wrong."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class BundleReport:
    """Outcome of all checks of a bundle.

    Attributes
    ----------
    path : Path
        The bundle's folder.
    results : tuple of CheckResult
        In order; later checks are left out when the bundle cannot be opened.
    """

    path: Path
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(result.passed for result in self.results)

    def __str__(self) -> str:
        lines = [
            f'{"ok  " if result.passed else "FAIL"}  {result.name}: {result.detail}'
            for result in self.results
        ]
        return '\n'.join([str(self.path), *lines])


@dataclass
class _Subject:
    """A bundle with its model and golden input, shared by the checks."""

    bundle: Bundle
    model: Any
    inputs: tuple[Any, ...]

    @property
    def differentiable(self) -> bool:
        return model_info(self.bundle.arch).backend == 'torch'

    def predict(self) -> np.ndarray:
        if not self.differentiable:
            return np.asarray(self.model(*self.inputs))
        import torch

        with torch.no_grad():
            ages: np.ndarray = self.model(*self.inputs).cpu().numpy()
        return ages


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BundleError(message)


def _check_input_contract(subject: _Subject) -> str:
    """Compare the declared input with what the architecture takes, and with itself."""
    bundle, declared = subject.bundle, subject.bundle.input
    kind, expected = kind_of(declared), kind_of(model_info(bundle.arch).input)
    _require(
        kind == expected or (kind.is_table and expected.is_table),
        f'`input.kind` is {kind.name}, but {bundle.arch} takes {expected.name}',
    )
    if kind.is_table:
        return f'table of {declared["shape"]}'
    affine = np.array(
        declared['affine'] or np.diag([*declared['voxel_size_mm'], 1.0]), dtype=float
    )
    check_volume(declared, declared['shape'], affine, 'declared grid')
    return f'{declared["kind"]}, {declared["shape"]} voxels of {declared["voxel_size_mm"]} mm'


def _check_forward(subject: _Subject) -> str:
    """Expect one finite age from the golden input."""
    ages = subject.predict()
    _require(ages.shape == (1,), f'output has shape {ages.shape}, expected (1,)')
    _require(bool(np.isfinite(ages).all()), f'output is {ages[0]}')
    return f'{ages[0]:.4f} years'


def _check_determinism(subject: _Subject) -> str:
    """Expect the same bits from two runs."""
    first, second = subject.predict(), subject.predict()
    _require(np.array_equal(first, second), f'{first} then {second} from the same input')
    return 'two runs agree bit for bit'


def _check_golden(subject: _Subject) -> str:
    """Expect the recorded age from the golden input."""
    metadata = subject.bundle.metadata
    found, expected = float(subject.predict()[0]), metadata['golden']['age']
    tolerance = metadata['tolerance_years']
    _require(
        abs(found - expected) <= tolerance,
        f'{found:.6f} years, expected {expected:.6f} within {tolerance}',
    )
    return f'{found:.4f} years, off by {abs(found - expected):.1e} (tolerance {tolerance})'


def _check_backward(subject: _Subject) -> str:
    """Expect finite gradients of the weights, not all zero."""
    if not subject.differentiable:
        return 'not applicable: no gradients'
    import torch

    weights = [p for p in subject.model.parameters() if p.requires_grad]
    with torch.enable_grad():
        age = subject.model(*subject.inputs).sum()
        gradients = torch.autograd.grad(age, weights, allow_unused=True)
    used = [gradient for gradient in gradients if gradient is not None]
    _require(bool(used), 'no weight influences the age')
    _require(
        all(bool(torch.isfinite(gradient).all()) for gradient in used), 'a gradient is not finite'
    )
    largest = max(float(gradient.abs().max()) for gradient in used)
    _require(largest > 0, 'all gradients are zero')
    return f'{len(used)} of {len(weights)} tensors, largest {largest:.1e}'


@contextmanager
def _layer_output(model: Any, name: str) -> Iterator[list[Any]]:
    outputs: list[Any] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> Any:
        outputs.append(output)
        # A following in-place activation must not change what was kept.
        return output.clone()

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def _gradcam_ready(subject: _Subject) -> str:
    import torch

    name = getattr(subject.model, 'gradcam_layer', '')
    _require(bool(name), 'the model names no `gradcam_layer`')
    with torch.enable_grad(), _layer_output(subject.model, name) as outputs:
        age = subject.model(*subject.inputs).sum()
        _require(len(outputs) == 1, f'layer {name} ran {len(outputs)} times')
        _require(
            outputs[0].ndim == 5 and len(outputs[0]) == 1,
            f'layer {name} gives {tuple(outputs[0].shape)}, expected (1, K, X, Y, Z)',
        )
        (gradient,) = torch.autograd.grad(age, outputs[0])
    _require(bool(torch.isfinite(gradient).all()), f'gradient at {name} is not finite')
    _require(bool(gradient.abs().max() > 0), f'gradient at {name} is zero')
    return f'gradcam at {name} {tuple(outputs[0].shape[1:])}'


def _guided_ready(subject: _Subject) -> str:
    import torch

    leaf = subject.inputs[0].clone().requires_grad_()
    with torch.enable_grad():
        age = subject.model(leaf, *subject.inputs[1:]).sum()
        (gradient,) = torch.autograd.grad(age, leaf)
    _require(gradient.shape == leaf.shape, 'input gradient does not have the input shape')
    _require(bool(torch.isfinite(gradient).all()), 'input gradient is not finite')
    return 'guided_backprop'


def _attention_ready(subject: _Subject) -> str:
    import torch

    maps_of = getattr(subject.model, 'attention_maps', None)
    if maps_of is None:
        raise BundleError('the model has no method `attention_maps`')
    with torch.no_grad():
        maps = maps_of(*subject.inputs)
    for stream, values in maps.items():
        _require(
            values.ndim == 4 and len(values) == 1,
            f'attention {stream} has shape {tuple(values.shape)}, expected (1, X, Y, Z)',
        )
    return f'attention {sorted(maps)}'


_SALIENCY: dict[str, Callable[[_Subject], str]] = {
    'gradcam': _gradcam_ready,
    'guided_backprop': _guided_ready,
    'attention': _attention_ready,
}


def _check_saliency(subject: _Subject) -> str:
    """Expect that each declared method finds what it needs in the model."""
    methods = subject.bundle.metadata['saliency']
    if not subject.differentiable:
        return 'not applicable: no gradients'
    return '; '.join(_SALIENCY[method](subject) for method in methods) or 'none declared'


_CHECKS: dict[str, Callable[[_Subject], str]] = {
    'input contract': _check_input_contract,
    'forward': _check_forward,
    'determinism': _check_determinism,
    'golden age': _check_golden,
    'backward': _check_backward,
    'saliency': _check_saliency,
}


def _open(path: Path) -> _Subject:
    bundle = load_bundle(path)
    model = bundle.instantiate()
    inputs: tuple[Any, ...] = golden_input(bundle.metadata)
    if model_info(bundle.arch).backend == 'torch':
        import torch

        inputs = tuple(torch.from_numpy(array) for array in inputs)
    return _Subject(bundle, model, inputs)


def _run(name: str, check: Callable[[_Subject], str], subject: _Subject) -> CheckResult:
    try:
        return CheckResult(name, True, check(subject))
    except Exception as error:
        # Whatever a third party's model raises is a finding, not a crash of the suite.
        return CheckResult(name, False, f'{type(error).__name__}: {error}')


def check_bundle(path: Path | str) -> BundleReport:
    """Run every conformance check on a bundle, on the CPU.

    Parameters
    ----------
    path : path-like
        The bundle's folder.

    Returns
    -------
    BundleReport
        With checks ``bundle`` (metadata, SHA-256, weights fit the architecture), ``input
        contract``, ``forward``, ``determinism``, ``golden age``, ``backward`` and
        ``saliency``.
    """
    folder = Path(path)
    try:
        subject = _open(folder)
    except BrainAgeError as error:
        return BundleReport(folder, (CheckResult('bundle', False, str(error)),))
    opened = CheckResult(
        'bundle', True, f'{subject.bundle.name} {subject.bundle.version}, weights verified'
    )
    results = [_run(name, check, subject) for name, check in _CHECKS.items()]
    return BundleReport(folder, (opened, *results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when every check of every bundle passed, else 1."""
    parser = argparse.ArgumentParser(
        prog='python -m bids_brainage.bundles.check', description='Check model bundles.'
    )
    parser.add_argument('path', type=Path, nargs='+', help='folder <arch>.<tag>')
    reports = [check_bundle(path) for path in parser.parse_args(arguments).path]
    for report in reports:
        sys.stdout.write(f'{report}\n')
    return 0 if all(report.passed for report in reports) else 1


if __name__ == '__main__':
    sys.exit(main())
