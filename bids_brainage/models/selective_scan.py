"""Selective scan of state-space models, written for little memory.

Gu and Dao 2023, "Mamba" (arXiv:2312.00752), equation 2:
``h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t``, ``y_t = C_t h_t + D u_t``.

Two forms of the same arithmetic.  The *sequential* form runs over time with one state in
place, the fastest on a CPU, where the update is bound by memory and exponentials and not by
the number of steps.  The *chunked* form runs all chunks of the sequence side by side, twice:
first from zero states, which gives the state at each boundary, then from those states; it
needs ``2 chunk + L / chunk`` steps instead of L, which pays on a GPU.  Both keep only the
states at the chunk boundaries for the backward pass, which recomputes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bids_brainage.errors import OptionError

Backend = Literal['auto', 'sequential', 'chunked']

#: Steps between two kept states.
CHUNK = 48
#: Bytes of recomputed states that the chunked backward pass holds at a time.
GROUP_BYTES = 1 << 30


@dataclass
class _Steps:
    """Inputs of T steps, G chunks side by side; time first."""

    dt: Tensor  # (T, G, B, K, d)
    drive: Tensor  # (T, G, B, K, d), dt times u
    b: Tensor  # (T, G, B, K, N)
    c: Tensor  # (T, G, B, K, N)

    def chunks(self, index: slice) -> _Steps:
        """Only some of the chunks."""
        return _Steps(*(t[:, index] for t in (self.dt, self.drive, self.b, self.c)))

    def times(self, index: slice) -> _Steps:
        """Only some of the steps."""
        return _Steps(*(t[index] for t in (self.dt, self.drive, self.b, self.c)))

    def total_decay(self, a: Tensor) -> Tensor:
        """Factor by which each chunk multiplies its first state, (G, B, K, d, N)."""
        return torch.exp(self.dt.sum(0).unsqueeze(-1) * a)


def _advance(
    state: Tensor, steps: _Steps, a: Tensor, y: Tensor | None = None, kept: Tensor | None = None
) -> None:
    """Run the recurrence in place.

    Parameters
    ----------
    state : Tensor, shape (G, B, K, d, N)
        Overwritten by the last state.
    steps : _Steps
        Inputs.
    a : Tensor, shape (K, d, N)
        Negative rates.
    y : Tensor, shape (T, G, B, K, d), or None
        Receives the outputs without the direct path.
    kept : Tensor, shape (T, G, B, K, d, N), or None
        Receives the state before each step.
    """
    decay = torch.empty_like(state)
    for t in range(len(steps.dt)):
        if kept is not None:
            kept[t].copy_(state)
        torch.mul(steps.dt[t].unsqueeze(-1), a, out=decay)
        decay.exp_()
        state.mul_(decay)
        state.addcmul_(steps.drive[t].unsqueeze(-1), steps.b[t].unsqueeze(-2))
        if y is not None:
            torch.matmul(state, steps.c[t].unsqueeze(-1), out=y[t].unsqueeze(-1))


def _retreat(grad: Tensor, steps: _Steps, a: Tensor, grad_y: Tensor) -> None:
    """Carry the gradient of the state from the end of each chunk to its start, in place."""
    decay = torch.empty_like(grad)
    for t in reversed(range(len(steps.dt))):
        grad.addcmul_(grad_y[t].unsqueeze(-1), steps.c[t].unsqueeze(-2))
        torch.mul(steps.dt[t].unsqueeze(-1), a, out=decay)
        grad.mul_(decay.exp_())


@dataclass
class _Gradients:
    """Gradients of `_Steps` (same layout) and of the rates."""

    dt: Tensor
    drive: Tensor
    b: Tensor
    c: Tensor
    a: Tensor

    @classmethod
    def like(cls, steps: _Steps, a: Tensor) -> _Gradients:
        """Empty ones; that of the rates is summed up and starts at 0."""
        dt, drive = torch.empty_like(steps.dt), torch.empty_like(steps.drive)
        b, c = torch.empty_like(steps.b), torch.empty_like(steps.c)
        return cls(dt, drive, b, c, torch.zeros_like(a))

    def times(self, index: slice) -> _Gradients:
        """Only some of the steps."""
        return _Gradients(self.dt[index], self.drive[index], self.b[index], self.c[index], self.a)

    def chunks(self, index: slice) -> _Gradients:
        """Only some of the chunks."""
        part = (slice(None), index)
        return _Gradients(self.dt[part], self.drive[part], self.b[part], self.c[part], self.a)


def _accumulate(
    grad: Tensor, start: Tensor, steps: _Steps, a: Tensor, grad_y: Tensor, into: _Gradients
) -> None:
    """Backward pass of some chunks.

    Parameters
    ----------
    grad : Tensor, shape (G, B, K, d, N)
        Gradient of the last state of each chunk; overwritten by that of its first.
    start : Tensor, shape (G, B, K, d, N)
        First states.
    steps, a
        Inputs of the forward pass.
    grad_y : Tensor, shape (T, G, B, K, d)
        Gradient of the outputs.
    into : _Gradients
        Receives the gradients of the inputs; that of the rates is added to.
    """
    before = start.new_empty((len(steps.dt), *start.shape))
    state = start.clone()
    _advance(state, steps, a, kept=before)
    decay, product = torch.empty_like(state), torch.empty_like(state)
    for t in reversed(range(len(steps.dt))):
        dt, drive = steps.dt[t].unsqueeze(-1), steps.drive[t].unsqueeze(-1)
        # the state after step t: the state before step t + 1, or the last one
        after = before[t + 1] if t + 1 < len(before) else state
        torch.matmul(grad_y[t].unsqueeze(-2), after, out=into.c[t].unsqueeze(-2))
        grad.addcmul_(grad_y[t].unsqueeze(-1), steps.c[t].unsqueeze(-2))
        torch.matmul(grad, steps.b[t].unsqueeze(-1), out=into.drive[t].unsqueeze(-1))
        torch.matmul(drive.transpose(-1, -2), grad, out=into.b[t].unsqueeze(-2))
        torch.mul(dt, a, out=decay)
        grad.mul_(decay.exp_())
        torch.mul(grad, before[t], out=product)
        torch.sum(torch.mul(product, a, out=decay), dim=-1, out=into.dt[t])
        into.a.add_(product.mul_(dt).sum(dim=(0, 1)))


def _cut(x: Tensor, chunk: int) -> Tensor:
    """Cut ``(L, ...)`` into chunks side by side, ``(chunk, G, ...)``, zero-padded."""
    padded = F.pad(x, (0, 0) * (x.ndim - 1) + (0, -len(x) % chunk))
    return padded.unflatten(0, (-1, chunk)).transpose(0, 1)


def _join(x: Tensor, length: int) -> Tensor:
    """Undo `_cut`."""
    return x.transpose(0, 1).flatten(0, 1)[:length]


def _forward_sequential(steps: _Steps, a: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Return outputs (L, 1, B, K, d) and first states of the chunks (chunks, B, K, d, N)."""
    length = len(steps.dt)
    y = torch.empty_like(steps.dt)
    state = steps.dt.new_zeros((*steps.dt.shape[1:], a.shape[-1]))
    starts = state.new_empty((-(-length // chunk), *state.shape[1:]))
    for number, first in enumerate(range(0, length, chunk)):
        starts[number].copy_(state[0])
        part = slice(first, first + chunk)
        _advance(state, steps.times(part), a, y=y[part])
    return y, starts


def _forward_chunked(steps: _Steps, a: Tensor) -> tuple[Tensor, Tensor]:
    """As `_forward_sequential`, for steps cut by `_cut`."""
    ends = steps.dt.new_zeros((*steps.dt.shape[1:], a.shape[-1]))
    _advance(ends, steps, a)
    decay = steps.total_decay(a)
    starts = torch.zeros_like(ends)
    for number in range(1, len(starts)):
        torch.addcmul(ends[number - 1], decay[number - 1], starts[number - 1], out=starts[number])
    y = torch.empty_like(steps.dt, memory_format=torch.contiguous_format)
    _advance(starts.clone(), steps, a, y=y)
    return y, starts


def _backward_sequential(
    steps: _Steps, a: Tensor, starts: Tensor, grad_y: Tensor, chunk: int
) -> _Gradients:
    into = _Gradients.like(steps, a)
    grad = torch.zeros_like(starts[:1])
    for number in reversed(range(len(starts))):
        part = slice(number * chunk, (number + 1) * chunk)
        start = starts[number : number + 1]
        _accumulate(grad, start, steps.times(part), a, grad_y[part], into.times(part))
    return into


def _backward_chunked(steps: _Steps, a: Tensor, starts: Tensor, grad_y: Tensor) -> _Gradients:
    local = torch.zeros_like(starts)
    _retreat(local, steps, a, grad_y)
    decay = steps.total_decay(a)
    ends = torch.zeros_like(starts)
    for number in reversed(range(len(starts) - 1)):
        torch.addcmul(local[number + 1], decay[number + 1], ends[number + 1], out=ends[number])
    into = _Gradients.like(steps, a)
    chunk_bytes = len(steps.dt) * starts[0].numel() * starts.element_size()
    group = max(1, GROUP_BYTES // chunk_bytes)
    for first in range(0, len(starts), group):
        part = slice(first, first + group)
        _accumulate(
            ends[part], starts[part], steps.chunks(part), a, grad_y[:, part], into.chunks(part)
        )
    return into


class _SelectiveScan(torch.autograd.Function):
    """Scan without the direct path ``D u``."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int, cut: bool
    ) -> Tensor:
        steps = _layout(u, dt, b, c, chunk, cut)
        if cut:
            y, starts = _forward_chunked(steps, a)
        else:
            y, starts = _forward_sequential(steps, a, chunk)
        ctx.save_for_backward(u, dt, a, b, c, starts)
        ctx.chunk, ctx.cut = chunk, cut
        return _join(y, len(u)) if cut else y.squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, a, b, c, starts = ctx.saved_tensors
        steps = _layout(u, dt, b, c, ctx.chunk, ctx.cut)
        if ctx.cut:
            found = _backward_chunked(steps, a, starts, _cut(grads[0], ctx.chunk))
            parts = (found.dt, found.drive, found.b, found.c)
            grad_dt, grad_drive, grad_b, grad_c = (_join(part, len(u)) for part in parts)
        else:
            grad_y = grads[0].contiguous().unsqueeze(1)
            found = _backward_sequential(steps, a, starts, grad_y, ctx.chunk)
            parts = (found.dt, found.drive, found.b, found.c)
            grad_dt, grad_drive, grad_b, grad_c = (part.squeeze(1) for part in parts)
        grad_dt = grad_dt + grad_drive * u
        return grad_drive * dt, grad_dt, found.a, grad_b, grad_c, None, None


def _layout(u: Tensor, dt: Tensor, b: Tensor, c: Tensor, chunk: int, cut: bool) -> _Steps:
    """Arrange the inputs for one of the two forms."""
    parts = (dt, dt * u, b, c)
    if cut:
        return _Steps(*(_cut(part, chunk) for part in parts))
    return _Steps(*(part.contiguous().unsqueeze(1) for part in parts))


def selective_scan(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    *,
    backend: Backend = 'auto',
    chunk: int = CHUNK,
) -> Tensor:
    """Run K selective scans over sequences of L steps.

    Always computed in float32 (float64 for float64 input), also under autocast.

    Parameters
    ----------
    u : Tensor, shape (L, B, K, d)
        Input; time first, so that one step is one block of memory.
    dt : Tensor, shape (L, B, K, d)
        Positive step sizes.
    a : Tensor, shape (K, d, N)
        Negative rates of the N states of each channel.
    b, c : Tensor, shape (L, B, K, N)
        Input and output weights of the states.
    d : Tensor, shape (K, d)
        Weights of the direct path.
    backend : {'auto', 'sequential', 'chunked'}
        Form of the computation; auto takes chunked on CUDA and sequential elsewhere.
    chunk : int
        Steps between two states that are kept for the backward pass.

    Returns
    -------
    Tensor, shape (L, B, K, d)
        Output, in the type of `u`.

    Raises
    ------
    OptionError
        Unknown backend or a chunk below 1.
    """
    if backend not in ('auto', 'sequential', 'chunked') or chunk < 1:
        raise OptionError(
            f"Selective scan: expected backend 'auto', 'sequential' or 'chunked' and a chunk of "
            f'at least 1, found {backend!r} and {chunk}.'
        )
    cut = backend == 'chunked' or (backend == 'auto' and u.is_cuda)
    full = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        inputs = (t.to(full) for t in (u, dt, a, b, c))
        y = _SelectiveScan.apply(*inputs, min(chunk, len(u)), cut)
        return (y + u.to(full) * d.to(full)).to(u.dtype)
