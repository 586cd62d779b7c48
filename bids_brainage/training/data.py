"""Batches of cached rows, the same whatever number of processes shares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bids_brainage.training.cache import Cache

Batch = tuple[tuple[Tensor, ...], Tensor, Tensor]


class RowDataset(Dataset[Batch]):
    """Rows of a cache; asked for a list of rows, it gives the whole batch.

    Each batch holds the inputs as stored (half precision), the ages (years, float32), and the
    row numbers.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return len(self.cache.sources)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        index = np.asarray(rows)
        inputs = tuple(torch.from_numpy(np.array(array[index])) for array in self.cache.arrays)
        ages = torch.from_numpy(self.cache.ages[index].astype(np.float32))
        return inputs, ages, torch.from_numpy(index.astype(np.int64))


class EpochPlan(Sampler[list[int]]):
    """Which rows each step of an epoch sees, on one of several processes.

    The order depends on seed and epoch only.  All processes together see the batches that one
    process alone would; a few rows are seen twice where processes do not divide the rows.

    Parameters
    ----------
    rows : sequence of int
        Rows of the cache.
    batch_size : int
        Rows per step over all processes.
    seed : int or None
        Of the shuffles; None keeps the order.
    rank, world : int
        This process, and how many there are.
    first_epoch : int
        Added to the epoch that the trainer counts (a resumed training counts from 0).
    least : int
        A last batch with fewer rows per process is dropped (2 where a normalisation layer
        would see a single value).
    """

    def __init__(
        self,
        rows: Sequence[int] | npt.NDArray[np.intp],
        batch_size: int,
        *,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        first_epoch: int = 0,
        least: int = 1,
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world = rank, world
        self.first_epoch, self.epoch = first_epoch, 0
        self.least = least

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, as the trainer counts it."""
        self.epoch = epoch

    @property
    def n_rows(self) -> int:
        """Number of rows of an epoch."""
        return len(self.rows)

    def _bounds(self) -> list[tuple[int, int]]:
        total = self.n_rows + (-self.n_rows) % self.world
        starts = range(0, total, self.batch_size)
        bounds = [(start, min(start + self.batch_size, total)) for start in starts]
        if len(bounds) > 1 and (bounds[-1][1] - bounds[-1][0]) // self.world < self.least:
            bounds.pop()
        return bounds

    def __len__(self) -> int:
        return len(self._bounds())

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of an epoch, counted over interruptions."""
        if self.seed is None:
            return self.rows
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order(self.first_epoch + self.epoch)
        order = np.concatenate([order, order[: (-len(order)) % self.world]])
        for start, stop in self._bounds():
            yield order[start:stop][self.rank :: self.world].tolist()


class MixedPlan(EpochPlan):
    """An epoch's batches of real people, each with a share of simulated ones.

    Every real row comes once an epoch.  The simulated ones are dealt from shuffles that go on from
    epoch to epoch, so that all have their turn, however many they are.

    Parameters
    ----------
    rows, batch_size, **more
        See `EpochPlan`; the rows are those of real people.
    simulated : sequence of int
        Rows of simulated people.
    share : float
        Of these in a batch, to within one row; over whole epochs the same.
    seed : int
        Of the shuffles.
    """

    def __init__(
        self,
        rows: Sequence[int] | npt.NDArray[np.intp],
        batch_size: int,
        *,
        simulated: Sequence[int] | npt.NDArray[np.intp],
        share: float,
        seed: int,
        **more: int,
    ) -> None:
        super().__init__(rows, batch_size, seed=seed, **more)
        self.simulated = np.asarray(simulated, dtype=np.int64)
        self._mixing_seed = seed
        places = np.arange(int(len(self.rows) / (1 - share)) + 2)
        # rounding must not move a place: 10 x 0.3 is 3
        before, after = (np.ceil(n * share - 1e-9) for n in (places, places + 1))
        mixed = after > before
        self.mixed = mixed[: int(np.flatnonzero(~mixed)[len(self.rows) - 1]) + 1]

    @property
    def n_rows(self) -> int:
        """Number of rows of an epoch."""
        return len(self.mixed)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of an epoch; within each batch real and simulated ones are shuffled."""
        order = np.empty(self.n_rows, np.int64)
        order[~self.mixed] = super().order(epoch)
        order[self.mixed] = self._dealt(epoch, int(self.mixed.sum()))
        rng = np.random.default_rng([self._mixing_seed, epoch, 1])
        for start in range(0, len(order), self.batch_size):
            rng.shuffle(order[start : start + self.batch_size])
        return order

    def _dealt(self, epoch: int, n: int) -> npt.NDArray[np.int64]:
        first, size = epoch * n, len(self.simulated)
        shuffles = [
            np.random.default_rng([self._mixing_seed, number, 2]).permutation(self.simulated)
            for number in range(first // size, -(-(first + n) // size))
        ]
        return np.concatenate(shuffles)[first % size :][:n]


def loader(cache: Cache, plan: Sampler[list[int]], *, workers: int = 0, pin: bool = False) -> Any:
    """Return the data loader of a plan."""
    return DataLoader(
        RowDataset(cache),
        sampler=plan,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=False,
    )


def least_rows(model: torch.nn.Module, inputs: Sequence[Tensor]) -> int:
    """Return the fewest rows a training step can have: 2 if BatchNorm would see one value.

    Parameters
    ----------
    model : torch.nn.Module
        The network; its state is left as it is.
    inputs : sequence of Tensor
        One row of inputs with batch axis.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    values: list[int] = []

    def count(_module: Any, arrays: tuple[Tensor, ...]) -> None:
        values.append(arrays[0].numel() // arrays[0].shape[1])

    handles = [
        module.register_forward_pre_hook(count)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
    ]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(*inputs)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return 2 if values and min(values) == 1 else 1
