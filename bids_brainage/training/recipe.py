"""Training recipes: each paper's values as TOML, changed key by key.

``data/recipes/<arch>.toml`` holds the published values.  A user's file has the same sections
and keys and only those that should differ; a key that is unknown, of another type, or without
effect beside the other choices is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from bids_brainage.errors import OptionError
from bids_brainage.settings import typed_as

STEPS, LAST_LAYER = 'steps', 'last_layer'
"""How a network is fitted: all of it by steps along the gradient, or its last layer at once."""


@dataclass(frozen=True)
class DataRecipe:
    """What one sample is.

    `coarsen` averages the published grid by a whole factor; `synthetic_slices` cuts research
    scans into thick-slice ones (System C); `on_problem` is ``stop`` or ``leave_out`` (scans
    that cannot be used); `modality` is ``t1w`` or ``aicbv``.  `patches` is how many patches or
    slices of each scan a generator of maps sees in an epoch.  `exclude_flags` are
    flags of the image whose scans are left out, ``stop`` for all that say "do not use".  Of a
    person only scans more than `years_apart` after the last one kept take part, and the first.
    """

    modality: str = 't1w'
    coarsen: int = 1
    synthetic_slices: bool = False
    on_problem: str = 'stop'
    patches: int = 1
    exclude_flags: tuple[str, ...] = ('stop',)
    years_apart: float = 0.0


@dataclass(frozen=True)
class SplitRecipe:
    """Who trains, selects and tests.

    `method`: ``random`` (by decade x sex x cohort, shares `validation` and `test`), ``kl``
    (ten partitions by age decile and cohort) or ``folds``.  With folds, `selection` says where
    the best epoch is chosen: ``halves`` (half of the held-out people, the other half tests),
    ``nested`` (a tenth of the training people) or ``fold_val`` (the held-out people
    themselves, as optimistic as it sounds); ``none`` for models without epochs, where who
    would choose trains, whatever the method.  `unit` is ``subject`` or ``scan``.
    `reserve_repeated` keeps people with several sessions out.
    """

    method: str = 'random'
    validation: float = 0.15
    test: float = 0.15
    folds: int = 5
    selection: str = 'halves'
    unit: str = 'subject'
    reserve_repeated: bool = False
    retest_max_days: float = 90.0


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised.

    `main`: ``mse``, ``l1``, ``huber`` (half the square up to an error of `huber_delta_years`, a
    line beyond), ``smooth_l1`` (generators of maps) or ``soft_bins`` (networks with a
    distribution over ages, whose labels are spread by `bin_sigma_years`).  `auxiliary_weight`
    times rank loss plus `difference_weight` times age-difference loss is added.  `scale`
    ``range`` measures ages in units of the training ages' range.  With `weights` ``decades``
    every decade of age counts the same (up to a cap), however many people it has; with ``cohorts``
    each cohort counts by its people, and the decades in each as in all cohorts together.
    """

    main: str = 'mse'
    huber_delta_years: float = 1.0
    auxiliary_weight: float = 0.0
    difference_weight: float = 0.5
    temperature_years: float = 1.0
    bin_sigma_years: float = 1.0
    scale: str = 'years'
    weights: str = 'none'


@dataclass(frozen=True)
class OptimiserRecipe:
    """``adam`` (L2 penalty in the gradient), ``adamw`` (decoupled) or ``sgd``."""

    name: str = 'adam'
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleRecipe:
    """``none``, ``warmup_cosine`` (every step), ``plateau`` or ``step`` (every epoch)."""

    name: str = 'none'
    warmup_epochs: int = 5
    start_rate: float = 1e-6
    final_rate: float = 1e-5
    patience: int = 5
    factor: float = 0.5
    minimum_rate: float = 0.0
    step_epochs: int = 30


@dataclass(frozen=True)
class AugmentationRecipe:
    """Random changes of training images; the defaults change nothing.

    `shift_voxels` is the largest shift along each axis, zero-filled; `mirror` the probability
    of a left-right flip; `gamma` and `gain` the ranges of alpha·(m·(v/m)^gamma + noise) with m the
    volume's maximum; `noise` the largest standard deviation of Gaussian noise, as a share of m;
    `smooth` that of a Gaussian filter, in voxels; `warp` and `shading` those of a smooth random
    displacement along each axis, in voxels, and of the log of a smooth random gain.
    """

    shift_voxels: tuple[int, ...] = (0, 0, 0)
    mirror: float = 0.0
    gamma: tuple[float, ...] = (1.0, 1.0)
    gain: tuple[float, ...] = (1.0, 1.0)
    noise: float = 0.0
    smooth: float = 0.0
    warp: float = 0.0
    shading: float = 0.0


@dataclass(frozen=True)
class RunRecipe:
    """How long and how.

    `fit` is ``steps`` (by gradients), or ``last_layer``: all other layers stay as they are in
    the start, and ridge regression fits the last one to each image as it is and as many times
    changed at random as there are epochs. `patience` 0 never stops early; `monitor` (``mae``
    or ``loss`` on the validation people) chooses the epoch whose weights are kept.
    `output_bias` ``mean`` starts at the mean training age, ``none`` does not.
    `freeze_backbone_epochs` holds the backbone still at the start; `start_from` is the folder
    of a bundle whose weights, grid and options are the start. `simulated_share` of each batch
    are scans of simulated people and the others of real ones, of whom an epoch sees all; with
    0 nobody asks who is simulated (with ``last_layer`` it is their share of the sum of all
    weights).
    `precision` is ``32`` or, on a GPU, ``bf16``.
    """

    fit: str = STEPS
    epochs: int = 100
    batch_size: int = 8
    simulated_share: float = 0.0
    patience: int = 0
    monitor: str = 'mae'
    output_bias: str = 'mean'
    freeze_backbone_epochs: int = 0
    start_from: str = ''
    precision: str = '32'
    channels_last: bool = False
    workers: int = 0


@dataclass(frozen=True)
class FusionRecipe:
    """System B: which predictions fit the regressions, and the other modality's training.

    `fit` is ``train+val`` (the paper's), ``val``, ``oof`` (people no network was trained on)
    or ``none``; `partner` names the bundle of the other modality, trained with the same split
    into the same output folder.
    """

    fit: str = 'none'
    partner: str = ''


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `model` holds options of the architecture."""

    data: DataRecipe = field(default_factory=DataRecipe)
    split: SplitRecipe = field(default_factory=SplitRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    augmentation: AugmentationRecipe = field(default_factory=AugmentationRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)
    fusion: FusionRecipe = field(default_factory=FusionRecipe)
    model: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Recipe:
        """Rebuild what `as_dict` gave."""
        problems: list[str] = []
        recipe = merged_recipe(cls(), stored, problems)
        if problems:
            raise OptionError('; '.join(problems))
        return recipe


def published_recipe(arch: str) -> Recipe:
    """Return the recipe that the architecture's paper gives.

    Raises
    ------
    OptionError
        There is none: the architecture cannot be trained.
    """
    path = files('bids_brainage') / 'data' / 'recipes' / f'{arch}.toml'
    if not path.is_file():
        raise OptionError(f'Architecture {arch!r} has no training recipe.')
    content = tomllib.loads(path.read_text('utf-8'))
    base = Recipe()
    if (parent := content.pop('extends', None)) is not None:
        base = replace(published_recipe(parent), model={})
    problems: list[str] = []
    recipe = merged_recipe(base, content, problems)
    if problems:
        raise OptionError(f'{path}: {"; ".join(problems)}')
    return recipe


def read_overrides(path: Path | str) -> dict[str, Any]:
    """Read a user's recipe file.

    Raises
    ------
    OptionError
        It cannot be read as TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text('utf-8'))
    except (OSError, ValueError) as error:
        raise OptionError(f'--recipe {path}: cannot be read as TOML ({error}).') from error


def merged_recipe(base: Recipe, changes: Mapping[str, Any], problems: list[str]) -> Recipe:
    """Replace keys of a recipe; what does not fit is added to the problems."""
    known = {item.name for item in fields(Recipe)}
    updates: dict[str, Any] = {}
    for name, values in changes.items():
        if name not in known:
            problems.append(f'Unknown section [{name}]; known: {", ".join(sorted(known))}.')
        elif not isinstance(values, Mapping):
            problems.append(f'{name} must be a section [{name}] with keys.')
        elif name == 'model':
            updates['model'] = {**base.model, **values}
        else:
            updates[name] = _section(name, getattr(base, name), values, problems)
    return replace(base, **updates)


def _section(name: str, old: Any, values: Mapping[str, Any], problems: list[str]) -> Any:
    hints = get_type_hints(type(old))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            problems.append(f'Unknown key {key} in [{name}]; known: {", ".join(sorted(hints))}.')
            continue
        try:
            changes[key] = typed_as(getattr(old, key), value)
        except TypeError as error:
            problems.append(f'{name}.{key}: {error}.')
    return replace(old, **changes)
