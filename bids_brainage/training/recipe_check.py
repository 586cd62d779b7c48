"""What a recipe may say, beyond the types of its keys."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from bids_brainage.errors import OptionError
from bids_brainage.flags import flag_table
from bids_brainage.inference.aicbv import ARCHITECTURES
from bids_brainage.inputs.kinds import MODALITIES, kind_of
from bids_brainage.models.registry import model_info, trainable_models
from bids_brainage.settings import typed_as
from bids_brainage.training.cohort import STOP
from bids_brainage.training.recipe import (
    LAST_LAYER,
    STEPS,
    Recipe,
    merged_recipe,
    published_recipe,
)

CHOICES: dict[str, tuple[str, ...]] = {
    'data.modality': tuple(MODALITIES),
    'data.on_problem': ('stop', 'leave_out'),
    'split.method': ('random', 'kl', 'folds'),
    'split.selection': ('halves', 'nested', 'fold_val', 'none'),
    'split.unit': ('subject', 'scan'),
    'loss.main': ('mse', 'l1', 'huber', 'soft_bins', 'smooth_l1'),
    'loss.scale': ('years', 'range'),
    'loss.weights': ('none', 'decades', 'cohorts'),
    'optimiser.name': ('adam', 'adamw', 'sgd'),
    'schedule.name': ('none', 'warmup_cosine', 'plateau', 'step'),
    'run.fit': (STEPS, LAST_LAYER),
    'run.monitor': ('mae', 'loss'),
    'run.output_bias': ('mean', 'none'),
    'run.precision': ('32', 'bf16'),
    'fusion.fit': ('train+val', 'val', 'oof', 'none'),
}
# Keys that only count beside some choice of another key of the section.
ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    'split.validation': ('method', ('random',)),
    'split.test': ('method', ('random',)),
    'split.folds': ('method', ('folds',)),
    'split.selection': ('method', ('folds',)),
    'loss.bin_sigma_years': ('main', ('soft_bins',)),
    'loss.huber_delta_years': ('main', ('huber',)),
    'optimiser.beta1': ('name', ('adam', 'adamw')),
    'optimiser.beta2': ('name', ('adam', 'adamw')),
    'optimiser.eps': ('name', ('adam', 'adamw')),
    'optimiser.momentum': ('name', ('sgd',)),
    'schedule.warmup_epochs': ('name', ('warmup_cosine',)),
    'schedule.start_rate': ('name', ('warmup_cosine',)),
    'schedule.final_rate': ('name', ('warmup_cosine',)),
    'schedule.patience': ('name', ('plateau',)),
    'schedule.minimum_rate': ('name', ('plateau',)),
    'schedule.factor': ('name', ('plateau', 'step')),
    'schedule.step_epochs': ('name', ('step',)),
    'fusion.partner': ('fit', ('train+val', 'val', 'oof')),
}
# Lowest and highest value of numbers.
LIMITS: dict[str, tuple[float, float]] = {
    'data.coarsen': (1, 16),
    'data.patches': (1, 10000),
    'data.years_apart': (0, 125),
    'split.validation': (0.01, 0.9),
    'split.test': (0.01, 0.9),
    'split.folds': (2, 100),
    'split.retest_max_days': (0, 36525),
    'loss.auxiliary_weight': (0, 1e6),
    'loss.difference_weight': (0, 1e6),
    'loss.temperature_years': (1e-6, 1e3),
    'loss.bin_sigma_years': (1e-3, 100),
    'loss.huber_delta_years': (1e-3, 100),
    'optimiser.learning_rate': (1e-12, 10),
    'optimiser.weight_decay': (0, 10),
    'schedule.warmup_epochs': (0, 10000),
    'schedule.factor': (1e-6, 1),
    'schedule.patience': (0, 10000),
    'schedule.step_epochs': (1, 10000),
    'augmentation.mirror': (0, 1),
    'augmentation.noise': (0, 1),
    'augmentation.smooth': (0, 10),
    'augmentation.warp': (0, 10),
    'augmentation.shading': (0, 2),
    'run.epochs': (1, 100000),
    'run.batch_size': (1, 65536),
    'run.simulated_share': (0, 1),
    'run.patience': (0, 100000),
    'run.freeze_backbone_epochs': (0, 100000),
    'run.workers': (0, 256),
}


# What counts for generators of maps, besides optimiser and schedule.
GENERATOR_KEYS = (
    'data.on_problem',
    'data.exclude_flags',
    'data.years_apart',
    'data.patches',
    'split.validation',
    'split.test',
    'loss.main',
    'run.epochs',
    'run.batch_size',
    'run.patience',
)


# What counts for models on tables.
TABLE_KEYS = (
    'data.on_problem',
    'data.exclude_flags',
    'data.years_apart',
    'split.method',
    'split.test',
    'split.folds',
    'split.unit',
    'split.reserve_repeated',
    'split.retest_max_days',
)


# What has no effect where only the last layer is fitted.
STEPS_SECTIONS = ('optimiser', 'schedule')
STEPS_KEYS = (
    'loss.main',
    'loss.huber_delta_years',
    'loss.auxiliary_weight',
    'loss.difference_weight',
    'loss.temperature_years',
    'loss.scale',
    'run.batch_size',
    'run.patience',
    'run.monitor',
    'run.output_bias',
    'run.freeze_backbone_epochs',
    'run.precision',
    'run.channels_last',
    'run.workers',
)


def make_recipe(
    arch: str, overrides: Mapping[str, Any], first: Mapping[str, Any] | None = None
) -> Recipe:
    """Change the published recipe of an architecture by key.

    Parameters
    ----------
    arch : str
        Registry name.
    overrides : mapping
        Section → key → value: what the user wants.
    first : mapping, optional
        Changes before these; they need no effect.

    Raises
    ------
    OptionError
        A section or key is unknown, a value of the wrong type or out of range, or a key has
        no effect beside the others; all such problems together.
    """
    problems: list[str] = []
    recipe = published_recipe(arch)
    if first:  # options of the architecture are those of the start
        recipe = merged_recipe(replace(recipe, model={}), first, problems)
    recipe = merged_recipe(recipe, overrides, problems)
    if recipe.run.fit == LAST_LAYER and recipe.fusion.fit in ('train+val', 'val'):
        if 'fit' in overrides.get('fusion', {}):
            problems.append(
                f'fusion.fit = "{recipe.fusion.fit}" is of no use with run.fit = "{LAST_LAYER}": '
                'people who were learnt from are told nearly their own age. Take "oof" or "none".'
            )
        recipe = replace(recipe, fusion=replace(recipe.fusion, fit='oof'))
    problems += without_effect(arch, recipe, overrides)
    problems += value_problems(recipe) + model_problems(arch, recipe)
    if problems:
        raise OptionError(f'Recipe of {arch}: ' + ' '.join(problems))
    return recipe


def factory_options(arch: str) -> dict[str, Any]:
    """Return the options that an architecture takes, with their defaults."""
    if arch in ARCHITECTURES:
        module, name = ARCHITECTURES[arch]
    else:
        info = model_info(arch)
        module, name = info.module, info.factory
    factory = getattr(import_module(module), name)
    return {name: item.default for name, item in inspect.signature(factory).parameters.items()}


def own_options(model: Mapping[str, Any], arch: str, trained: Sequence[str]) -> dict[str, Any]:
    """Return what ``[model]`` of a recipe for several architectures says to one of them.

    Parameters
    ----------
    model : mapping
        Options, and tables of options for one architecture each (``[model.resnet_only]``).
    arch : str
        The one.
    trained : sequence of str
        All; an option goes to those that have it, and to all if none has it, who refuse it.

    Raises
    ------
    OptionError
        A table is for an architecture that is not trained.
    """
    for name in set(model) & set(trainable_models()) - set(trained):
        raise OptionError(
            f'--recipe: [model.{name}] has no effect, --arch is {" ".join(trained)}. Leave it '
            'out, or train this architecture, too.'
        )
    tables = {
        name: values
        for name, values in model.items()
        if name in trained and isinstance(values, Mapping)
    }
    known = {name: factory_options(name) for name in trained}

    def is_for_arch(key: str) -> bool:
        return key in known[arch] or not any(key in options for options in known.values())

    own = {key: value for key, value in model.items() if key not in tables and is_for_arch(key)}
    return {**own, **tables.get(arch, {})}


def without_effect(arch: str, recipe: Recipe, overrides: Mapping[str, Any]) -> list[str]:
    """Name the given keys that the other choices make meaningless."""
    problems = [
        f'{name}.{key} has no effect on {arch}.'
        for name, values in overrides.items()
        if isinstance(values, Mapping) and name != 'model'
        for key in values
        if not _counts(arch, name, key)
    ]
    if recipe.run.fit == LAST_LAYER:
        problems += [
            f'{name}.{key} has no effect with run.fit = "{LAST_LAYER}".'
            for name, values in overrides.items()
            if isinstance(values, Mapping) and name != 'model'
            for key in values
            if name in STEPS_SECTIONS or f'{name}.{key}' in STEPS_KEYS
        ]
    for dotted, (switch, needed) in ONLY_WITH.items():
        section, key = dotted.split('.')
        values = overrides.get(section)
        chosen = getattr(getattr(recipe, section), switch)
        if isinstance(values, Mapping) and key in values and chosen not in needed:
            problems.append(
                f'{dotted} has no effect with {section}.{switch} = "{chosen}" (only with '
                f'{" or ".join(needed)}).'
            )
    return problems


def _counts(arch: str, section: str, key: str) -> bool:
    """Tell whether a key means anything for a network, a table or a generator of maps."""
    dotted = f'{section}.{key}'
    if arch in ARCHITECTURES:
        return section in ('optimiser', 'schedule') or dotted in GENERATOR_KEYS
    return dotted in TABLE_KEYS if _takes_table(arch) else dotted != 'data.patches'


def _takes_table(arch: str) -> bool:
    return kind_of(model_info(arch).input).is_table


def value_problems(recipe: Recipe) -> list[str]:
    """Name values that are none of the choices or out of range."""

    def value(dotted: str) -> Any:
        section, key = dotted.split('.')
        return getattr(getattr(recipe, section), key)

    problems = [
        f'{dotted} must be {" or ".join(allowed)}, found {value(dotted)!r}.'
        for dotted, allowed in CHOICES.items()
        if value(dotted) not in allowed
    ]
    problems += [
        f'{dotted} must lie between {low:g} and {high:g}, found {value(dotted)!r}.'
        for dotted, (low, high) in LIMITS.items()
        if not low <= value(dotted) <= high
    ]
    known = {STOP, *flag_table()}
    problems += [
        f'data.exclude_flags: {name!r} is no flag; known are {", ".join(sorted(known))}.'
        for name in recipe.data.exclude_flags
        if name not in known
    ]
    share, batch = recipe.run.simulated_share, recipe.run.batch_size
    if recipe.run.fit == LAST_LAYER:
        if share == 1:
            problems.append('run.simulated_share = 1 leaves no share to real people.')
    elif share and min(share, 1 - share) * batch < 1 - 1e-9:
        problems.append(
            f'run.simulated_share = {share:g} is less than one simulated or one real scan of a '
            f'batch (run.batch_size = {batch}).'
        )
    if recipe.split.validation + recipe.split.test > 0.95:
        problems.append('split.validation and split.test leave nobody to train on.')
    for name in ('gamma', 'gain'):
        low, high = getattr(recipe.augmentation, name)
        if not 0 < low <= high:
            problems.append(f'augmentation.{name} must rise from above 0, found [{low}, {high}].')
    return problems


def model_problems(arch: str, recipe: Recipe) -> list[str]:
    """Check the options of the architecture without building it."""
    options = factory_options(arch)
    fixed = {'input_shape', 'age_range', 'n_bins', 'n_nodes'}
    problems = [
        f'model.{key}: {arch} has no such option; it takes '
        f'{", ".join(x for x in options if x not in fixed) or "none"}.'
        for key in recipe.model
        if key not in options or key in fixed
    ]
    problems += _type_problems(options, recipe.model)
    if arch in ARCHITECTURES:
        if recipe.loss.main in ('soft_bins', 'huber'):
            problems.append(f'loss.main: {recipe.loss.main} is for ages, {arch} generates maps.')
        return problems
    if recipe.loss.main == 'smooth_l1':
        problems.append(f'loss.main: smooth_l1 is for generators of maps, not {arch}.')
    info = model_info(arch)
    if recipe.data.synthetic_slices and not kind_of(info.input).native:
        problems.append(f'data.synthetic_slices: {arch} does not take clinical T1w images.')
    if recipe.data.modality == 'aicbv' and info.system != 'B':
        problems.append(f'data.modality: only System B is trained on AICBV maps, not {arch}.')
    if (recipe.split.selection == 'none') != _takes_table(arch):
        problems.append('split.selection: none goes with models without epochs, and only these.')
    if recipe.fusion.fit != 'none' and info.system != 'B':
        problems.append(f'fusion.fit: only System B fuses modalities, not {arch}.')
    if (recipe.loss.main == 'soft_bins') != ('n_bins' in options):
        problems.append(
            f'loss.main: soft_bins goes with architectures that predict a distribution over '
            f'ages, and only with these; {arch} does {"" if "n_bins" in options else "not "}so.'
        )
    return problems


def _type_problems(options: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Name options whose value is of another type than their default."""
    problems = []
    for key in given.keys() & options.keys():
        if isinstance(options[key], bool | int | float | str):
            try:
                typed_as(options[key], given[key])
            except TypeError as error:
                problems.append(f'model.{key}: {error}.')
    return sorted(problems)
