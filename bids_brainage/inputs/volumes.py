"""Features of a brain from the volumes of its structures.

A feature is the logarithm of a ratio of volumes, so it does not depend on head size, and a
method that measures a structure a few per cent larger shifts it by a constant.  Features are
written as text: ``'lateral_ventricle/brain'``, ``'caudate+putamen/brain'``,
``'brain/intracranial'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bids_brainage.errors import ProcessingError
from bids_brainage.inputs.kinds import KINDS
from bids_brainage.inputs.measure_titles import measure_title

OUTER_FLUID = 'csf'
"""Structure that counts as intracranial but not as brain."""

INTRACRANIAL = 'intracranial'
"""Sum of brain and outer fluid, see `totals`."""


def totals(volumes: Mapping[str, float]) -> dict[str, float]:
    """Return structure volumes with the two sums ``brain`` and ``intracranial``.

    Parameters
    ----------
    volumes : mapping
        Structure → millilitres.

    Returns
    -------
    dict
        Also ``brain`` (tissue and ventricles, as FreeSurfer's *BrainSegVol*) and
        ``intracranial`` (brain and the fluid around it, inside the brain mask).

    Examples
    --------
    >>> totals({'cortex': 500.0, 'lateral_ventricle': 20.0, OUTER_FLUID: 300.0})['brain']
    520.0
    """
    intracranial = float(sum(volumes.values()))
    brain = intracranial - float(volumes.get(OUTER_FLUID, 0.0))
    return {**volumes, 'brain': brain, INTRACRANIAL: intracranial}


def log_ratios(volumes: Mapping[str, float], features: Sequence[str]) -> np.ndarray:
    """Return the features of one brain.

    Parameters
    ----------
    volumes : mapping
        Structure → millilitres.
    features : sequence of str
        ``'a+b/c'``: sum of structures over a structure or total.

    Returns
    -------
    ndarray of float64, shape (len(features),)

    Raises
    ------
    ProcessingError
        If a structure is absent or empty.

    Examples
    --------
    >>> volumes = {'cortex': 500.0, 'lateral_ventricle': 20.0}
    >>> log_ratios(volumes, ['cortex/lateral_ventricle']).round(3).tolist()  # ln 25
    [3.219]
    """
    known = totals(volumes)
    out = []
    for feature in features:
        above, below = (side.split('+') for side in feature.split('/'))
        absent = [name for name in (*above, *below) if name not in known]
        if absent:
            raise ProcessingError(
                f'structure volumes lack {", ".join(absent)}, which the model needs; found '
                f'{", ".join(sorted(known))}. The volumes come from another version of the '
                'segmentation: run the participant level again.'
            )
        values = [sum(known[name] for name in side) for side in (above, below)]
        if min(values) <= 0:
            raise ProcessingError(
                f'feature {feature} is {values[0]:g} ml over {values[1]:g} ml; expected both '
                'above 0. The segmentation failed: look at the brain mask.'
            )
        out.append(np.log(values[0] / values[1]))
    return np.array(out)


def title_of(feature: str, kind: str = 'volumes') -> str:
    """Return the name a person reads for a feature.

    Parameters
    ----------
    feature : str
    kind : str
        Input kind of the model: the structures of ``'volumes'`` are those of the atlas, of
        ``'region_volumes'`` those of the segmentation network, of ``'measures'`` those of
        another program.

    Examples
    --------
    >>> title_of('lateral_ventricle/brain'), title_of('brain/intracranial')
    ('Lateral ventricles', 'Brain within its envelope')
    >>> title_of('caudate/brain'), title_of('caudate/brain', 'region_volumes')
    ('Caudate and accumbens', 'Caudate nucleus')
    """
    from bids_brainage.preprocessing.atlas import structure_titles
    from bids_brainage.segmentation.regions import load_regions

    above = feature.split('/')[0]
    if KINDS[kind].elsewhere and above not in {region.name for region in load_regions()}:
        return measure_title(feature)
    if above == 'brain':
        return 'Brain within its envelope'
    if KINDS[kind].is_segmented or KINDS[kind].elsewhere:
        titles = {region.name: region.title for region in load_regions()}
    else:
        titles = structure_titles()
    first, *others = (titles[name] for name in above.split('+'))
    return ', '.join([first, *(title[0].lower() + title[1:] for title in others)])


def by_title(values: Mapping[str, float], kind: str) -> dict[str, float]:
    """Return values of features by title, summed where features share one.

    Parameters
    ----------
    values : mapping
        Feature → years.
    kind : str
        As for `title_of`.
    """
    named: dict[str, float] = {}
    for feature, value in values.items():
        title = title_of(feature, kind)
        named[title] = named.get(title, 0.0) + value
    return named


def shown_on(feature: str) -> tuple[str, ...]:
    """Return the structures on which a feature's contribution is painted.

    The fraction ``brain/intracranial`` is shown on the fluid around the brain, which is what
    grows when the fraction shrinks.
    """
    above = tuple(feature.split('/')[0].split('+'))
    return (OUTER_FLUID,) if above == ('brain',) else above
