"""The network of a training: its options, and the weights that it starts with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bids_brainage.bundles.bundle import Bundle, load_bundle
from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.models.registry import create_model
from bids_brainage.training.job import Job
from bids_brainage.training.recipe import LAST_LAYER, Recipe
from bids_brainage.training.recipe_check import factory_options
from bids_brainage.training.start import start_options, start_state

log = logging.getLogger(__name__)


def model_options(job: Job, ages: npt.ArrayLike) -> dict[str, Any]:
    """Return the options of the architecture for a fold's training people.

    Parameters
    ----------
    job : Job
        Gives grid, nodes and the recipe's own options.
    ages : array_like
        Ages of the training scans, years.
    """
    return arch_options(job.arch, job.recipe, job.declared, ages)


def arch_options(
    arch: str, recipe: Recipe, declared: Mapping[str, Any], ages: npt.ArrayLike
) -> dict[str, Any]:
    """Return the options of an architecture; see `model_options`."""
    if recipe.run.start_from:
        return {**start_options(load_bundle(recipe.run.start_from, verify=False)), **recipe.model}
    known = factory_options(arch)
    options: dict[str, Any] = dict(recipe.model)
    if 'input_shape' in known:
        options['input_shape'] = list(declared['shape'])
    if 'n_nodes' in known:
        options['n_nodes'] = declared['n_nodes']
    if 'age_range' in known:
        values = np.asarray(ages, float)
        low, high = float(values.min()), float(values.max())
        if 'n_bins' in known:
            low, high = float(np.floor(low) - 2), float(np.ceil(high) + 2)
            options['n_bins'] = int(high - low)
        options['age_range'] = [low, high]
    return options


def check_network(
    arch: str, recipe: Recipe, declared: Mapping[str, Any], processes: int = 1
) -> None:
    """Refuse a grid that the architecture cannot take, or a start that does not fit it.

    Called before any input is prepared.

    Raises
    ------
    OptionError
        The grid is too small, the weights do not fit, or the last layer cannot be fitted alone.
    """
    import torch

    smallest = kind_of(declared).smallest_axis
    if min(declared['shape']) < smallest:
        raise OptionError(
            f'data.coarsen = {recipe.data.coarsen} is too much for {arch}. Input grid '
            f'{tuple(declared["shape"])}: expected at least {smallest} voxels per axis.'
        )
    try:
        with torch.random.fork_rng(devices=[]):
            model = create_model(arch, **arch_options(arch, recipe, declared, (20.0, 80.0)))
    except UnusableImageError as error:
        raise OptionError(
            f'data.coarsen = {recipe.data.coarsen} is too much for {arch}. {error}'
        ) from error
    begin_anew = set(model.state_dict())
    if recipe.run.start_from:
        bundle = load_bundle(recipe.run.start_from)
        begin_anew = load_start(model, bundle, 1, whole=not recipe.model)
        if begin_anew:
            log.warning(
                '%s: these weights are not in %s and begin anew: %s',
                arch, bundle.name, ', '.join(sorted(begin_anew)),
            )  # fmt: skip
    if recipe.run.fit == LAST_LAYER:
        _check_last_layer(arch, model, begin_anew, processes)


def _check_last_layer(arch: str, model: Any, begin_anew: set[str], processes: int) -> None:
    last = model.output_layer
    others = sorted(name for name in begin_anew if not name.startswith(f'{last}.'))
    if not last:
        raise OptionError(
            f'run.fit = "{LAST_LAYER}": the output of {arch} is no linear function of its last '
            'layer. Take fit = "steps".'
        )
    if others:
        raise OptionError(
            f'run.fit = "{LAST_LAYER}" leaves all other layers as they are, and the start has no '
            f'weights for {", ".join(others)}. Leave these layers out with [model] of --recipe '
            '(vgg8: hidden = []), or start from another bundle (--start-from).'
        )
    if processes > 1:
        raise OptionError(
            f'run.fit = "{LAST_LAYER}" takes one process, found {processes}. Leave --devices and '
            '--num-nodes out.'
        )


def start_model(job: Job, ages: npt.NDArray[np.float64], fold: int) -> Any:
    """Build the network with its initial weights, the same on every process."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed + fold - 1)
        model = create_model(job.arch, **model_options(job, ages))
    begin_anew = {f'{model.output_layer}.bias'}
    if job.recipe.run.start_from:
        bundle = load_bundle(job.recipe.run.start_from)
        begin_anew &= load_start(model, bundle, fold, whole=not job.recipe.model)
    if begin_anew and job.recipe.run.output_bias == 'mean':
        model.set_output_bias(float(ages.mean()))
    if job.recipe.run.channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
    return model


def load_start(model: Any, bundle: Bundle, fold: int, *, whole: bool) -> set[str]:
    """Give a network the weights of a bundle; return the names of those that it does not have.

    Parameters
    ----------
    model : torch.nn.Module
    bundle : Bundle
    fold : int
        From 1; an ensemble gives each fold one of its members.
    whole : bool
        All weights must fit.  Otherwise options of the architecture differ from those of the
        bundle, and only weights of the same name and shape are taken.

    Raises
    ------
    OptionError
        They do not fit.
    """
    state, own = start_state(bundle, fold), model.state_dict()
    if not whole:
        state = {n: v for n, v in state.items() if n in own and v.shape == own[n].shape}
        if not any(value.dim() > 1 for value in state.values()):
            raise OptionError(
                f'--start-from {bundle.name}: with these options in [model] no layer is as in the '
                'bundle. Leave [model] out of --recipe.'
            )
    try:
        model.load_state_dict(state if whole else {**own, **state})
    except RuntimeError as error:
        raise OptionError(
            f'run.start_from: {bundle.path} does not fit {bundle.arch}: {error}'
        ) from error
    counters = {name for name in own if name.endswith('.num_batches_tracked')}
    return set(own) - set(state) - counters
