"""Texts for the side files of BOLD tables."""

from __future__ import annotations

from collections.abc import Iterable

from bids_brainage.preprocessing.bold.motion import PARAMETERS

_TEXTS = {
    'global_signal': ('Mean signal of the brain.', 'arbitrary'),
    'white_matter': ('Mean signal of deep white matter.', 'arbitrary'),
    'csf': ('Mean signal of the lateral ventricles.', 'arbitrary'),
    'dvars': ('Root mean square change from the volume before, of the mean signal.', '%'),
    'std_dvars': ('DVARS against that of independent noise.', '1'),
    'framewise_displacement': ('Framewise displacement (Power 2012), sphere of 50 mm.', 'mm'),
}
_ENDS = {
    '': ('', ''),
    '_derivative1': (', change from the volume before', ''),
    '_power2': (', squared', '^2'),
    '_derivative1_power2': (', change from the volume before, squared', '^2'),
}

REGION_COLUMNS = {
    'index': {'Description': 'Value in the label image, or number of the sphere.'},
    'name': {'Description': 'Region; heads the columns of time series and matrices.'},
    'network': {'Description': 'Functional network of the region, where the atlas knows one.'},
    'hemisphere': {'Description': 'Side of the brain.', 'Levels': {'L': 'left', 'R': 'right'}},
    'x': {'Description': 'Centre of the sphere, to the right in MNI space.', 'Units': 'mm'},
    'y': {'Description': 'Centre of the sphere, forward in MNI space.', 'Units': 'mm'},
    'z': {'Description': 'Centre of the sphere, upward in MNI space.', 'Units': 'mm'},
    'radius': {'Description': 'Radius of the sphere.', 'Units': 'mm'},
}


def describe_confounds(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return description and unit of confound columns for the JSON side file."""
    return {name: _describe(name) for name in names}


def _describe(name: str) -> dict[str, str]:
    if name in _TEXTS:
        text, unit = _TEXTS[name]
        return {'Description': text, 'Units': unit}
    for parameter in PARAMETERS:
        end = _ENDS.get(name.removeprefix(parameter))
        if name.startswith(parameter) and end is not None:
            kind, axis = parameter.split('_')
            moved = 'Translation along' if kind == 'trans' else 'Rotation about'
            unit = 'mm' if kind == 'trans' else 'rad'
            text = f'{moved} {axis} (RAS+) of the head against the reference{end[0]}.'
            return {'Description': text, 'Units': unit + end[1]}
    if name.startswith('non_steady_state_outlier'):
        return {'Description': 'Volume before the steady state of the magnetisation.'}
    return {'Description': name}
