"""The selective scan: both forms, every chunk length, and gradients."""

from __future__ import annotations

import pytest
import torch

from bids_brainage.errors import OptionError
from bids_brainage.models import selective_scan as module
from bids_brainage.models.selective_scan import selective_scan

FLOAT32_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-9
BACKENDS = ['sequential', 'chunked']


def make_inputs(length, batch=2, k=2, d=3, n=4, dtype=torch.float32, seed=0):
    """Inputs of the size that a trained network has."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(length, batch, k, d, generator=g, dtype=dtype)
    dt = 0.1 * torch.rand(length, batch, k, d, generator=g, dtype=dtype) + 1e-3
    a = -torch.arange(1, n + 1, dtype=dtype).repeat(k, d, 1)
    b = torch.randn(length, batch, k, n, generator=g, dtype=dtype)
    c = torch.randn(length, batch, k, n, generator=g, dtype=dtype) / n
    return u, dt, a, b, c, torch.ones(k, d, dtype=dtype)


def plain_loop(u, dt, a, b, c, d):
    """The recurrence as it is written, one new tensor a step."""
    state = u.new_zeros((*u.shape[1:], a.shape[-1]))
    rows = []
    for t in range(len(u)):
        state = torch.exp(dt[t][..., None] * a) * state
        state = state + (dt[t] * u[t])[..., None] * b[t][..., None, :]
        rows.append((state * c[t][..., None, :]).sum(-1) + d * u[t])
    return torch.stack(rows)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('chunk', [1, 5, 48, 100])
def test_every_chunk_length_equals_the_double_precision_loop(backend, chunk):
    inputs = make_inputs(100)
    expected = plain_loop(*(t.double() for t in inputs))
    found = selective_scan(*inputs, backend=backend, chunk=chunk)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=FLOAT32_TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('length', 'chunk'), [(7, 3), (6, 3), (5, 48), (1, 1)])
def test_gradcheck(backend, length, chunk):
    inputs = make_inputs(length, batch=1, k=2, d=2, n=3, dtype=torch.float64)
    leaves = tuple(t.requires_grad_(True) for t in inputs)
    assert torch.autograd.gradcheck(
        lambda *x: selective_scan(*x, backend=backend, chunk=chunk), leaves
    )


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('group_chunks', [1, 3, 1000])
def test_gradients_equal_those_of_the_loop(backend, group_chunks, monkeypatch):
    inputs = make_inputs(100, dtype=torch.float64)
    chunk_bytes = 7 * inputs[0][0].numel() * 4 * 8
    monkeypatch.setattr(module, 'GROUP_BYTES', group_chunks * chunk_bytes)
    weights = torch.randn_like(inputs[0])

    def gradients(scan):
        leaves = [t.clone().requires_grad_(True) for t in inputs]
        return torch.autograd.grad((scan(*leaves) * weights).sum(), leaves)

    found = gradients(lambda *x: selective_scan(*x, backend=backend, chunk=7))
    for one, other in zip(found, gradients(plain_loop), strict=True):
        torch.testing.assert_close(one, other, atol=GRADIENT_TOLERANCE, rtol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize('backend', BACKENDS)
def test_strong_decay_does_not_overflow(backend):
    u, dt, a, b, c, d = make_inputs(200, n=64)
    found = selective_scan(u, dt + 1, a, b, c, d, backend=backend)
    assert found.isfinite().all()


@pytest.mark.parametrize('backend', BACKENDS)
def test_half_precision_and_autocast_compute_in_single_precision(backend):
    inputs = make_inputs(60)
    expected = selective_scan(*inputs, backend=backend)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(selective_scan(*inputs, backend=backend), expected)
    half = [t.bfloat16() for t in inputs]
    found = selective_scan(*half, backend=backend)
    assert found.dtype == torch.bfloat16
    exact = selective_scan(*(t.float() for t in half), backend=backend)
    assert torch.equal(found, exact.bfloat16())


def test_inputs_are_left_alone_and_need_not_be_contiguous():
    inputs = make_inputs(50)
    copies = [t.clone() for t in inputs]
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in inputs]
    expected = selective_scan(*inputs, backend='sequential')
    assert torch.equal(selective_scan(*strided, backend='sequential'), expected)
    assert all(torch.equal(one, other) for one, other in zip(inputs, copies, strict=True))


def test_second_derivatives_are_refused():
    u, *rest = make_inputs(5)
    u.requires_grad_(True)
    (grad,) = torch.autograd.grad(selective_scan(u, *rest).sum(), u, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_bad_options_are_refused():
    inputs = make_inputs(5)
    with pytest.raises(OptionError, match='parallel'):
        selective_scan(*inputs, backend='parallel')
    with pytest.raises(OptionError, match='at least 1'):
        selective_scan(*inputs, chunk=0)
