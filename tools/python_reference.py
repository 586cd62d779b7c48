"""The page of the Python API: read from the source, without importing it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

API: dict[str, dict[str, tuple[str, ...]]] = {
    'Models and bundles': {
        'models.registry': ('list_models', 'model_info', 'create_model', 'ModelInfo'),
        'models.base': (),
        'bundles.bundle': (
            *('Bundle', 'load_bundle', 'find_bundles', 'resolve_bundle', 'export_bundle'),
        ),
        'bundles.check': ('check_bundle', 'BundleReport', 'CheckResult'),
    },
    'Datasets': {'dataset.discovery': ('find_scans',), 'dataset.scan': ('Scan', 'Age')},
    'Regions of a brain': {
        'segmentation.regions': ('Region', 'load_regions'),
        'segmentation.measure': (
            *('Regions', 'measure', 'probabilities', 'network_grid', 'scaled', 'region_volumes'),
        ),
        'segmentation.weights': ('card', 'load_networks'),
    },
    'Statistics': {
        'statistics.accuracy': (),
        'statistics.bias': (),
        'statistics.conformal': (),
        'statistics.longitudinal': (),
        'statistics.reliability': (),
    },
    'Simulated people': {'simulation': ('make_person', 'simulate_person', 'simulate_scan')},
    'Errors': {'errors': ()},
}
"""Modules by heading, and the names of each that are told; all public ones where none is named."""

INTRODUCTION = """# Python API

The program is thin; what it does can be called from Python. Functions say in their text the shape,
space, unit and sign of what they take and give.

```python
from bids_brainage.models import create_model, list_models

list_models()  # architectures, without importing PyTorch
model = create_model('resnet_crossvit')  # a torch module with fresh weights
```
"""


def summaries(module: str, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return name, file (from the root) and first sentence of what a module offers.

    Names that a package only passes on are looked up where they are defined.
    """
    path = _file(module)
    found: dict[str, tuple[str, str]] = {}
    for node in ast.parse(path.read_text('utf-8')).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith('_'):
            text = (ast.get_docstring(node) or '').split('\n\n')[0].replace('\n', ' ')
            found[node.name] = (path.relative_to(ROOT).as_posix(), text)
        elif isinstance(node, ast.ImportFrom) and node.module and path.name == '__init__.py':
            inner = node.module.removeprefix('bids_brainage.')
            wanted = tuple(alias.name for alias in node.names)
            found |= {name: (file, text) for name, file, text in summaries(inner, wanted)}
    return [(name, *found[name]) for name in names or found]


def _file(module: str) -> Path:
    base = ROOT.joinpath('bids_brainage', *module.split('.'))
    return base / '__init__.py' if base.is_dir() else base.with_suffix('.py')


def directives() -> str:
    """Return what Sphinx is told, to show the whole docstrings on the built page."""
    parts = []
    for title, modules in API.items():
        parts.append(f'## {title}: whole texts\n\n```{{eval-rst}}')
        for module, names in modules.items():
            members = ', '.join(names)
            parts.append(f'.. automodule:: bids_brainage.{module}\n   :members: {members}\n')
        parts.append('```\n')
    return '\n'.join(parts)
