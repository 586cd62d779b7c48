"""Batches in parts: the same gradients in less memory, and running means counted once."""

import copy

import pytest
import torch
from torch import nn

from bids_brainage.training.parts import by_parts


def network(normalisation):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), normalisation, nn.ReLU(),
        nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0),
    )  # fmt: skip


def step(model, images, most):
    """Return what the model says, its gradients, and the bytes that the graph keeps."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        said = by_parts(model, model, (images,), most)
    said.square().mean().backward()
    return said.detach(), [p.grad.clone() for p in model.parameters()], sum(kept.values())


@pytest.mark.parametrize('most', [1, 2, 3])
def test_gradients_are_those_of_the_whole_batch(most):
    images = torch.rand(7, 1, 9, 9, 9)
    model = network(nn.GroupNorm(2, 8))
    model(images)
    other = copy.deepcopy(model)
    whole, parts = step(model, images, None), step(other, images, most)
    torch.testing.assert_close(whole[0], parts[0])
    torch.testing.assert_close(whole[1], parts[1])
    assert parts[2] < whole[2] / 5


def test_running_means_see_each_part_once():
    images = torch.rand(4, 1, 9, 9, 9)
    model = network(nn.BatchNorm3d(8))
    model(images)
    other = copy.deepcopy(model)
    step(model, images, 2)
    for part in images.split(2):
        other(part)
    torch.testing.assert_close(model[1].running_mean, other[1].running_mean)
    torch.testing.assert_close(model[1].running_var, other[1].running_var)
    assert model[1].momentum == other[1].momentum


def test_without_gradients_parts_say_what_the_batch_says():
    images = torch.rand(5, 1, 9, 9, 9)
    model = network(nn.BatchNorm3d(8)).eval()
    with torch.no_grad():
        torch.testing.assert_close(by_parts(model, model, (images,), 2), model(images))
