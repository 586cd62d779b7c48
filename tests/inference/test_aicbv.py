"""AICBV generator: sizes, patches, overlap, forecast, weights."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bids_brainage.errors import (
    BrainAgeError,
    BundleError,
    MissingInputError,
    OptionError,
    UnusableImageError,
)
from bids_brainage.inference.aicbv import (
    HEADER,
    brain_box,
    load_generator,
    save_generator,
    synthesise_aicbv,
)
from bids_brainage.inference.sliding_window import plan, probe_patch_seconds, sliding_window
from bids_brainage.models.aicbv_mamba import AICBVMamba
from bids_brainage.models.vss3d import DT_MAX, DT_MIN, SS3D

FLOAT32_TOLERANCE = 1e-6


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return AICBVMamba(preset='test').eval()


@pytest.mark.parametrize(
    ('preset', 'count'), [('full', 84_398_721), ('lite', 7_830_849), ('test', 1_074_081)]
)
def test_parameter_counts(preset, count):
    with torch.device('meta'):
        assert n_parameters(AICBVMamba(preset=preset)) == count


def test_parameter_counts_of_the_full_bottleneck():
    with torch.device('meta'):
        network = AICBVMamba()
    assert n_parameters(network.bottleneck) == 61_820_928
    assert n_parameters(network.bottleneck[0]) == 6_868_992
    assert n_parameters(network.bottleneck[0].scan) == 4_765_696
    assert len(network.bottleneck) == 9


def test_encoder_shapes_of_the_full_network():
    with torch.device('meta'):
        network = AICBVMamba()
        x = torch.empty(1, 1, 96, 96, 96)
        shapes = []
        for level, encoder in enumerate(network.encoders):
            x = encoder(network.pool(x) if level else x)
            shapes.append(tuple(x.shape[1:]))
        expanded = network.expand(x)
    assert shapes == [(32, 96, 96, 96), (64, 48, 48, 48), (128, 24, 24, 24), (256, 12, 12, 12)]
    assert tuple(expanded.shape[1:]) == (1024, 12, 12, 12)


def test_output_has_the_grid_of_the_input_and_every_parameter_learns(network):
    x = torch.rand(2, 1, 16, 24, 8, generator=torch.Generator().manual_seed(0))
    out = network(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.zero_grad(set_to_none=True)
    assert not any('path' in key or 'inverse' in key for key in network.state_dict())


def test_grids_that_do_not_halve_three_times_are_refused(network):
    with pytest.raises(OptionError, match='multiples of 8'):
        network(torch.zeros(1, 1, 16, 16, 12))
    with pytest.raises(OptionError, match='full, lite, test'):
        AICBVMamba(preset='huge')


def test_step_sizes_and_rates_start_as_specified():
    torch.manual_seed(0)
    scan = SS3D(64, 8)
    dt = torch.nn.functional.softplus(scan.dt_bias)
    assert dt.min() >= DT_MIN * 0.99
    assert dt.max() <= DT_MAX * 1.01
    assert dt.log().mean().item() == pytest.approx(np.log(1e-2), abs=0.2)
    torch.testing.assert_close(-scan.a_log.exp()[3, 5], -torch.arange(1.0, 9))
    assert scan.dt_weight.abs().max() <= scan.rank**-0.5


def test_scan_follows_its_path_and_comes_back():
    torch.manual_seed(0)
    scan = SS3D(16, 4, order='raster', dropout=0).eval()
    scan._set_grid((4, 4, 4), torch.device('cpu'))
    tokens = torch.rand(1, 64, 16)
    changed = tokens.clone()
    changed[0, 20] += 1
    with torch.no_grad():
        difference = (scan._scan(changed) - scan._scan(tokens)).abs().sum(dim=2)[0]
    # eight directions in four orientations reach every voxel from any other
    assert (difference > 0).all()
    assert difference.argmax() == 20


def test_another_grid_replaces_the_paths():
    scan = SS3D(16, 4).eval()
    for grid in [(4, 4, 4), (2, 3, 5), (4, 4, 4)]:
        with torch.no_grad():
            assert scan(torch.rand(1, *grid, 16)).shape == (1, *grid, 16)
        assert scan.path.shape == (np.prod(grid), 8)


def test_brain_box_of_an_adult_takes_36_patches():
    assert len(plan((160, 192, 160), 96, 32)) == 36
    assert plan((96, 50, 97), 96, 32) == [(0, 0, 0), (0, 0, 32)]
    with pytest.raises(BrainAgeError, match='stride from 1'):
        plan((96, 96, 96), 96, 97)


@pytest.mark.parametrize('batch', [1, 4])
@pytest.mark.parametrize('shape', [(10, 17, 9), (5, 6, 7)])
def test_overlapping_outputs_are_averaged(shape, batch):
    volume = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    identity = sliding_window(volume, lambda x: x, patch=8, stride=3, batch=batch)
    torch.testing.assert_close(identity, volume, atol=FLOAT32_TOLERANCE, rtol=0)
    means = sliding_window(
        volume, lambda x: x.mean((2, 3, 4), True).expand_as(x), patch=8, stride=8, batch=batch
    )
    assert means.shape == shape
    padded = torch.nn.functional.pad(volume, (0, 8, 0, 8, 0, 8))
    assert means[0, 0, 0].item() == pytest.approx(padded[:8, :8, :8].mean().item(), rel=1e-5)


def test_forecast_comes_first_and_progress_counts_up():
    reports = []
    sliding_window(
        torch.rand(16, 8, 8),
        lambda x: x,
        patch=8,
        stride=4,
        batch=2,
        probe=4,
        on_progress=reports.append,
    )
    assert [(r.done, r.total) for r in reports] == [(0, 3), (2, 3), (3, 3)]
    assert reports[0].elapsed_s == 0
    assert reports[0].remaining_s > 0
    assert reports[-1].remaining_s == 0


def test_forecast_scales_the_probe_by_its_voxels(monkeypatch):
    times = iter([10.0, 12.0])
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr('bids_brainage.inference.sliding_window.time', clock)
    assert probe_patch_seconds(lambda x: x, 96, 32, torch.zeros(1)) == pytest.approx(54)


def test_progress_callback_can_stop_a_run():
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sliding_window(torch.rand(8, 8, 8), lambda x: x, patch=8, stride=8, on_progress=stop)


def test_networks_that_change_the_grid_are_refused():
    with pytest.raises(BrainAgeError, match='keep the grid'):
        sliding_window(torch.rand(8, 8, 8), lambda x: x[:, :, :4], patch=8, stride=8)


def test_map_covers_the_brain_and_only_the_brain(network, caplog):
    mask = np.zeros((40, 45, 50), dtype=bool)
    mask[5:37, 6:38, 8:44] = True
    mask[10, 10, 10] = False
    t1w = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    with caplog.at_level(logging.INFO):
        generated = synthesise_aicbv(t1w, mask, network, stride=16)
    assert generated.shape == mask.shape
    assert generated.dtype == np.float32
    assert np.isfinite(generated).all()
    np.testing.assert_array_equal(generated != 0, mask)
    assert 'AICBV map: 2 patches' in caplog.text
    outside = np.where(mask, t1w, 7).astype(np.float32)
    np.testing.assert_array_equal(synthesise_aicbv(outside, mask, network, stride=16), generated)


def test_bad_masks_are_refused(network):
    with pytest.raises(UnusableImageError, match='empty'):
        brain_box(np.zeros((3, 3, 3), dtype=bool))
    with pytest.raises(UnusableImageError, match='the mask is'):
        synthesise_aicbv(np.zeros((3, 3, 3)), np.ones((3, 3, 2), dtype=bool), network)


def test_weights_come_back_as_they_were(network, tmp_path):
    path = tmp_path / 'generator.safetensors'
    save_generator(network, path, {'preset': 'test'})
    loaded = load_generator(path)
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_same_weights_give_the_same_file(network, tmp_path):
    path, written = tmp_path / 'generator.safetensors', set()
    for _ in range(8):  # several header entries came in either order
        save_generator(network, path, {'preset': 'test'})
        written.add(path.read_bytes())
    assert len(written) == 1


def test_unfit_weights_are_explained(network, tmp_path):
    path = tmp_path / 'generator.safetensors'
    with pytest.raises(MissingInputError, match='no such file'):
        load_generator(path)
    path.write_bytes(b'rubbish')
    with pytest.raises(BundleError, match=r'generator\.safetensors'):
        load_generator(path)
    save_file({'x': torch.zeros(1)}, path)
    with pytest.raises(BundleError, match="found 'no name'"):
        load_generator(path)
    for options in ({'preset': 'huge'}, {'presets': 'test'}, {'preset': 'test'}):
        built = json.dumps({'arch': 'aicbv_mamba', 'options': options})
        save_file({'x': torch.zeros(1)}, path, metadata={HEADER: built})
        with pytest.raises(BundleError, match='do not fit'):
            load_generator(path)
