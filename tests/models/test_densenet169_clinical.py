"""System C: sizes and shapes of its network (models specification, System C)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bids_brainage.errors import OptionError
from bids_brainage.inference.saliency import explain
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.models.densenet169_clinical import INPUT_SHAPE, DenseNet169Clinical
from bids_brainage.models.registry import model_info
from bids_brainage.models.views import views

N_PARAMETERS = 20_386_945
N_PARAMETERS_ALL_TRANSITIONS = 18_544_385


@pytest.fixture(scope='module')
def shape_only():
    """The network without memory: shapes and counts only."""
    with torch.device('meta'):
        return DenseNet169Clinical().eval()


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return DenseNet169Clinical()


def test_parameter_count_is_that_of_the_paper(shape_only):
    assert sum(p.numel() for p in shape_only.parameters()) == N_PARAMETERS


def test_all_transitions_would_give_another_count():
    from bids_brainage.models.densenet import DenseNetFeatures

    with torch.device('meta'):
        features = DenseNetFeatures((6, 12, 32, 32), nn.LeakyReLU)
        head = nn.Linear(features.out_channels, 1)
    count = sum(p.numel() for part in (features, head) for p in part.parameters())
    assert count == N_PARAMETERS_ALL_TRANSITIONS


def test_every_activation_is_a_leaky_relu_out_of_place(shape_only):
    rectifiers = [m for m in shape_only.modules() if isinstance(m, (nn.ReLU, nn.LeakyReLU))]
    assert len(rectifiers) == 168
    assert {type(m) for m in rectifiers} == {nn.LeakyReLU}
    assert {m.negative_slope for m in rectifiers} == {0.01}
    assert not any(m.inplace for m in rectifiers)


def test_shapes_of_every_stage(shape_only):
    stages = shape_only.features.stages
    x = shape_only.features.stem(torch.empty(1, 1, *INPUT_SHAPE, device='meta'))
    shapes = [tuple(x.shape[1:])]
    for stage in stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (64, 20, 30, 10),
        (256, 20, 30, 10),
        (128, 10, 15, 5),
        (512, 10, 15, 5),
        (256, 5, 7, 2),
        (1280, 5, 7, 2),
        (2304, 5, 7, 2),
    ]
    penultimate = shape_only.penultimate(torch.empty(2, 1, *INPUT_SHAPE, device='meta'))
    assert penultimate.shape == (2, 2304)


def test_initialisation_follows_fan_in_and_leaky_slope(network):
    conv = network.features.stages.block3[10].conv2
    fan_in = conv.in_channels * 27
    expected = (2 / (1 + 0.01**2) / fan_in) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert network.regressor.bias.item() == 0


def test_small_grid_gives_finite_ages_and_gradients(network):
    network.train()
    ages = network(torch.rand(2, 1, 16, 16, 16))
    ages.sum().backward()
    assert ages.shape == (2,)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.zero_grad(set_to_none=True)


def test_output_bias_starts_at_the_mean_age(network):
    network.set_output_bias(51.0)
    assert network.regressor.bias.item() == 51.0


def test_smallest_grid_that_training_accepts_is_the_smallest_that_can_be_halved():
    network = DenseNet169Clinical().eval()
    smallest = kind_of(model_info('densenet169_clinical').input).smallest_axis
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 26, 40, smallest)).shape == (1,)
        with pytest.raises(RuntimeError, match='smaller than kernel size'):
            network(torch.zeros(1, 1, 26, 40, smallest - 1))


def test_views_are_the_image_and_its_mirror_moved_along_the_axes():
    image = torch.zeros(1, 1, 5, 4, 3)
    image[0, 0, 1, 2, 1] = 1
    seen = list(views(image, (1, 0, 1)))
    assert {tuple(v.shape) for v in seen} == {tuple(image.shape)}
    where = sorted(tuple(torch.nonzero(v)[0, 2:].tolist()) for v in seen)
    expected = [(x + dx, 2, 1 + dz) for x in (1, 3) for dx in (-1, 0, 1) for dz in (-1, 0, 1)]
    assert where == sorted(expected)
    far = torch.zeros(1, 1, 5, 4, 3)
    far[0, 0, 0] = 1
    assert min(float(v.sum()) for v in views(far, (1, 0, 0))) == 0  # moved out, not around
    (only, mirror) = views(image, (0, 0, 0))
    assert torch.equal(only, image) and torch.equal(mirror, image.flip(2))


@pytest.fixture(scope='module')
def seeing_more(network):
    """The same weights, averaging over views."""
    more = DenseNet169Clinical(view_shift=[2, 1, 0])
    more.load_state_dict(network.state_dict())
    return more


def test_age_is_the_mean_over_views_once_trained(network, seeing_more):
    image = torch.rand(2, 1, 20, 18, 16)
    seeing_more.eval()
    network.eval()
    with torch.inference_mode():
        ages = [network(view) for view in views(image, (2, 1, 0))]
        assert len(ages) == 18
        assert torch.allclose(seeing_more(image), torch.stack(ages).mean(0), atol=1e-4)
        # a mirrored head has the same age
        assert torch.allclose(seeing_more(image.flip(2)), seeing_more(image), atol=1e-4)
        assert not torch.allclose(network(image.flip(2)), network(image), atol=1e-4)


def test_training_sees_the_image_once(seeing_more):
    passes = []
    handle = seeing_more.features.register_forward_hook(lambda *_: passes.append(1))
    image = torch.rand(2, 1, 16, 16, 16)
    seeing_more.train()
    seeing_more(image)
    assert len(passes) == 1
    seeing_more.eval()
    seeing_more(image)
    handle.remove()
    assert len(passes) == 1 + 18


def test_map_of_views_explains_their_mean(network, seeing_more):
    image = torch.rand(1, 1, 16, 18, 16)
    assert seeing_more.saliency_methods == ('guided_backprop',)
    (shown,) = explain('guided_backprop', seeing_more.eval(), (image,)).values()
    assert shown.shape == (16, 18, 16)
    (turned,) = explain('guided_backprop', seeing_more, (image.flip(2),)).values()
    assert abs(turned[::-1] - shown).max() < 1e-4 * abs(shown).max()


@pytest.mark.parametrize('shift', [[1, 2], [1, -1, 0]])
def test_impossible_views_are_refused(shift):
    with pytest.raises(OptionError, match='three whole numbers'):
        DenseNet169Clinical(view_shift=shift)
