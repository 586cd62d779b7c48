"""Grad-CAM against known answers, what is shown of a map, and its sanity test."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from bids_brainage.errors import ProcessingError
from bids_brainage.inference.saliency import METHODS, choose_slices, explain, keep_top
from bids_brainage.inference.saliency.gradcam import gradcam
from bids_brainage.inference.saliency.sanity import (
    randomised_copy,
    spearman,
)
from bids_brainage.models import create_model, list_models, model_info

FLOAT32_TOLERANCE = 1e-5


class Analytic(nn.Module):
    """``age = mean over voxels of 3 A_1 - 2 A_2`` with A_1 = x, A_2 = 0.5 x."""

    gradcam_layer = 'features'

    def __init__(self):
        super().__init__()
        self.features = nn.Conv3d(1, 2, 1, bias=False)
        self.act = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, 0.5]).view(2, 1, 1, 1, 1))

    def forward(self, x):
        maps = self.act(self.features(x)).mean(dim=(2, 3, 4))
        return 3 * maps[:, 0] - 2 * maps[:, 1]


@pytest.fixture
def image():
    return torch.rand((1, 1, 6, 5, 4), generator=torch.Generator().manual_seed(0)) + 0.1


def test_gradcam_of_a_known_model(image):
    # alpha = (3, -2) / voxels, so the map is (3 * 1 - 2 * 0.5) x / voxels.
    expected = 2 * image[0, 0].numpy() / image[0, 0].numel()
    found = gradcam(Analytic(), (image,))
    np.testing.assert_allclose(found, expected, rtol=FLOAT32_TOLERANCE)
    assert found.dtype == np.float32


def test_gradcam_relu_switch(image):
    model = Analytic()
    with torch.no_grad():
        model.features.weight.copy_(torch.tensor([0.1, 1.0]).view(2, 1, 1, 1, 1))
    assert not gradcam(model, (image,)).any()
    magnitude = gradcam(model, (image,), relu=False)
    expected = abs(3 * 0.1 - 2) * image[0, 0].numpy() / image[0, 0].numel()
    np.testing.assert_allclose(magnitude, expected, rtol=FLOAT32_TOLERANCE)


def test_gradcam_peaks_where_the_bright_cell_is():
    model = Analytic()
    model.features = nn.Sequential(nn.AvgPool3d(4), model.features)
    x = torch.zeros(1, 1, 16, 12, 20)
    x[..., 4:8, 0:4, 12:16] = 1
    values = gradcam(model, (x,))
    assert values.shape == (16, 12, 20)
    weight = values / values.sum()
    centre = [float((np.indices(values.shape)[axis] * weight).sum()) for axis in range(3)]
    # Along axis 1 the cell touches the border, where interpolation stays flat.
    assert centre[0] == pytest.approx(5.5, abs=FLOAT32_TOLERANCE)
    assert centre[1] < 4
    assert centre[2] == pytest.approx(13.5, abs=FLOAT32_TOLERANCE)


def test_gradcam_leaves_the_model_as_it_was(image):
    model = Analytic().train()
    model.features.weight.requires_grad_(False)
    gradcam(model, (image,))
    assert model.training
    assert model.act.training
    assert not model.features.weight.requires_grad
    assert not model.features._forward_hooks


def test_gradcam_works_inside_inference_mode(image):
    model = Analytic()
    expected = gradcam(model, (image,))
    with torch.inference_mode():
        np.testing.assert_array_equal(gradcam(model, (image.clone(),)), expected)


def test_gradcam_errors(image):
    with pytest.raises(ProcessingError, match='one scan at a time'):
        gradcam(Analytic(), (image.repeat(2, 1, 1, 1, 1),))
    model = Analytic()
    model.gradcam_layer = ''
    with pytest.raises(ProcessingError, match='no layer'):
        gradcam(model, (image,))


def test_gradcam_equals_full_backward():
    torch.manual_seed(0)
    model = create_model('vgg8', input_shape=[32, 32, 32]).eval()
    x = torch.rand(1, 1, 32, 32, 32)
    kept = []
    layer = model.get_submodule(model.gradcam_layer)
    handle = layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
    age = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(age, kept[0])
    evidence = (gradient.mean((2, 3, 4), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
    expected = torch.nn.functional.interpolate(evidence, size=(32,) * 3, mode='trilinear')
    np.testing.assert_allclose(
        gradcam(model, (x,)), expected[0, 0].detach().numpy(), atol=FLOAT32_TOLERANCE
    )


def test_vgg8_target_layer_is_the_last_convolution():
    with torch.device('meta'):
        model = create_model('vgg8')
        x = torch.empty(1, 1, 182, 218, 182)
        for block in model.features[:4]:
            x = block(x)
        layer = model.get_submodule(model.gradcam_layer)
        assert isinstance(layer, nn.Conv3d)
        assert tuple(layer(x).shape[1:]) == (256, 11, 13, 11)


@pytest.mark.parametrize(
    'name',
    [n for n in list_models() if model_info(n).input['kind'] in {'modulated_gm', 't1w_brain'}],
)
def test_every_declared_method_gives_maps_on_the_input_grid(name):
    torch.manual_seed(0)
    shape = (49, 33, 34)
    sized = name not in {'resnet_crossvit', 'resnet_only'}
    model = create_model(name, **({'input_shape': shape} if sized else {})).eval()
    x = torch.rand(1, 1, *shape)
    assert model.saliency_methods
    for method in model.saliency_methods:
        maps = explain(method, model, (x,), relu=False)
        for values in maps.values():
            assert values.shape == shape
            assert np.isfinite(values).all()
            assert np.ptp(values) > 0


def test_unknown_and_unsuitable_methods(image):
    with pytest.raises(ProcessingError, match=', '.join(METHODS)):
        explain('lime', Analytic(), (image,))
    with pytest.raises(ProcessingError, match='no attention maps'):
        explain('attention', Analytic(), (image,))


def test_top_fifth():
    values = np.arange(1000.0).reshape(10, 10, 10)
    kept = keep_top(values)
    assert np.count_nonzero(kept) == 200
    assert kept.max() == 999
    assert kept[kept > 0].min() == 800
    sparse = np.zeros((10, 10, 10))
    sparse[0, 0, :5] = [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(keep_top(sparse), sparse)


def test_slice_choice_and_ties():
    values = np.zeros((4, 5, 6))
    values[1, :3, 2] = 1
    values[2, :3, 4] = 2
    chosen = choose_slices(values)
    assert (chosen['axial'].axis, chosen['axial'].index, chosen['axial'].area) == (2, 4, 3)
    assert chosen['sagittal'].index == 2
    assert chosen['coronal'].index == 0
    assert chosen['coronal'].area == 2


def test_spearman_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 8, 9, 7))
    expected = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
    assert spearman(a, b) == pytest.approx(expected, abs=1e-12)
    assert spearman(a, np.ones_like(a)) is None


def test_randomised_copy_shuffles_and_repeats():
    torch.manual_seed(0)
    model = nn.Conv3d(1, 8, 3)
    before = model.weight.detach().clone()
    copy, again = randomised_copy(model, 3), randomised_copy(model, 3)
    assert torch.equal(model.weight, before)
    assert torch.equal(copy.weight, again.weight)
    assert not torch.equal(copy.weight, before)
    assert torch.equal(copy.weight.flatten().sort().values, before.flatten().sort().values)


def test_sanity_tells_an_edge_detector_from_an_explanation():
    image = torch.rand(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    model = create_model('resnet_only').eval()
    maps = [gradcam(m, (image,), relu=False) for m in (model, randomised_copy(model))]
    assert spearman(image[0, 0], image[0, 0]) == pytest.approx(1)
    similarity = spearman(*maps)
    assert similarity is not None
    assert similarity < 0.9
