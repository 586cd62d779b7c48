"""What is known of a published network: one record each, without any heavy import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NOT_RUN = 'Layout checked, not run with the published weights'
"""What can be said of every converter here: the files themselves could not be tried."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights as its authors published it.

    Attributes
    ----------
    name : str
        Its usual name.
    git_blob : str or None
        Object id that git gives its content, 40 hexadecimal digits; None if it is not public.
    note : str
        What tells it from the others, empty if nothing.
    """

    name: str
    git_blob: str | None = None
    note: str = ''

    def __str__(self) -> str:
        identity = f'git blob {self.git_blob}' if self.git_blob else 'identity unknown'
        return f'{self.name} ({", ".join(filter(None, [self.note, identity]))})'


@dataclass(frozen=True)
class Layout:
    """How the tensors of a file become those of an architecture.

    Attributes
    ----------
    names : mapping
        Name in the file → name in the architecture.
    options : mapping
        ``arch_options`` of the architecture.
    unused : frozenset of str
        Names that the file may hold and no age depends on.
    turn : callable, or None
        ``(name in the file, tensor) -> tensor`` in the order of axes of the architecture.
    """

    names: Mapping[str, str]
    options: Mapping[str, Any]
    unused: frozenset[str] = frozenset()
    turn: Callable[[str, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Training:
    """On whom the published weights were trained; None or 0 where the authors do not say."""

    data: str
    n: int = 0
    age_min: float | None = None
    age_max: float | None = None


@dataclass(frozen=True)
class Choices:
    """What a user may say of the weights.

    Attributes
    ----------
    array_order : {'LAS', 'RAS'}
        Order of the arrays on which the network was trained.  Images on FSL's MNI152 grid are
        stored from right to left (LAS).
    space : str
        TemplateFlow label of the training space.
    age_range : tuple of float or None
        Lowest and highest age of the training, years; None takes the published ones.
    training_data, training_n
        On whom other weights than the published ones were trained.
    licence, copyright : str or None
        Of such weights.
    """

    array_order: str = 'LAS'
    space: str = 'MNI152NLin6Asym'
    age_range: tuple[float, float] | None = None
    training_data: str | None = None
    training_n: int | None = None
    licence: str | None = None
    copyright: str | None = None


@dataclass(frozen=True)
class Published:
    """A published network.

    Attributes
    ----------
    name : str
        Of the command ``convert``.
    arch : str
        Registry name of the architecture.
    tag : str
        Default second part of the bundle's name.
    title : str
        One line for people.
    source : str
        Where its authors publish it.
    reference : dict
        ``text`` and ``doi`` of the paper.
    licence, copyright : str
        Of the weights, as their source states it.
    restriction : str
        What the user has to confirm, empty if nothing.
    files : tuple of PublishedFile
        Files that are known.
    layout : callable
        ``(tensors of one file, Choices) -> Layout``.
    training : Training
        Of the published weights.
    preprocessing : str
        What the authors do to an image.
    differences : str
        What this program does otherwise, or what is not known.
    format : str
        ``'torch'`` or ``'keras'``.
    n_files : int
        Files that make one bundle, an ensemble if more than one.
    combine : str
        ``'mean'`` or ``'median'`` of the ensemble.
    output : dict
        ``output`` block of the bundle besides quantity and unit.
    saliency : tuple of str or None
        Explanation maps; None are those of the architecture.
    scale : float
        Largest value of the input on which the golden age is recorded.
    shape : tuple of int or None
        Input grid; None is that of the architecture.
    """

    name: str
    arch: str
    tag: str
    title: str
    source: str
    reference: Mapping[str, str | None]
    licence: str
    copyright: str
    restriction: str
    files: tuple[PublishedFile, ...]
    layout: Callable[[Mapping[str, Tensor], Choices], Layout]
    training: Training
    preprocessing: str
    differences: str
    format: str = 'torch'
    n_files: int = 1
    combine: str = 'mean'
    output: Mapping[str, Any] = field(default_factory=lambda: {'kind': 'scalar'})
    saliency: tuple[str, ...] | None = None
    scale: float = 1.0
    shape: tuple[int, ...] | None = None


def batch_norm_names(source: str, own: str) -> dict[str, str]:
    """Return the names of a BatchNorm layer in two networks, old → new."""
    fields = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    return {f'{source}.{name}': f'{own}.{name}' for name in fields}


def weight_and_bias(source: str, own: str) -> dict[str, str]:
    """Return the names of a layer with weight and bias in two networks, old → new."""
    return {f'{source}.{name}': f'{own}.{name}' for name in ('weight', 'bias')}
