"""Baselines of System A and the network of System B: exact sizes and shapes."""

import pytest
import torch

from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.models import create_model


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet_only():
    model = create_model('resnet_only').eval()
    assert count(model) == 9_816_401
    with torch.no_grad():
        assert model(torch.rand(2, 1, 32, 32, 32)).shape == (2,)


@pytest.mark.parametrize('arch', ['resnet_only', 'resnet_vit', 'resnet_crossvit'])
def test_contextual_transformers_can_be_left_out(arch):
    with_cot, without = (create_model(arch, cot=cot) for cot in (True, False))
    assert count(with_cot) - count(without) == 2 * (148_716 + 592_316)
    named = {name for name, _ in without.named_parameters()}
    assert named < {name for name, _ in with_cot.named_parameters()}


def test_vit_only_has_150_patches():
    model = create_model('vit_only').eval()
    assert model.encoder.grid == (5, 6, 5)
    assert tuple(model.encoder.position.shape) == (1, 151, 256)
    assert len(model.encoder.blocks) == 12
    assert count(model) == pytest.approx(10.57e6, rel=1e-3)
    with torch.no_grad():
        assert model(torch.rand(1, 1, 84, 102, 84)).shape == (1,)


def test_vit_sees_every_whole_patch_and_no_remainder():
    model = create_model('vit_only', input_shape=[33, 32, 32], depth=1).eval()
    x = torch.rand(1, 1, 33, 32, 32)
    beyond, inside = x.clone(), x.clone()
    beyond[..., 32, :, :] += 1
    inside[..., 31, 0, 0] += 1
    with torch.no_grad():
        assert torch.equal(model(x), model(beyond))
        assert not torch.equal(model(x), model(inside))


def test_resnet_vit_joins_both_vectors():
    model = create_model('resnet_vit', input_shape=[32, 32, 32]).eval()
    assert model.readout[1].in_features == 512
    with torch.no_grad():
        assert model(torch.rand(1, 1, 32, 32, 32)).shape == (1,)


def test_vit_refuses_other_grids():
    model = create_model('vit_only', input_shape=[32, 32, 32], depth=1)
    with pytest.raises(UnusableImageError, match='expected'):
        model(torch.rand(1, 1, 48, 32, 32))
    with pytest.raises(UnusableImageError, match='16 voxels'):
        create_model('vit_only', input_shape=[15, 32, 32])


@pytest.mark.parametrize(
    ('shape', 'flat', 'total'),
    [
        ((182, 218, 182), 38_400, 20_904_065),
        ((160, 192, 160), 38_400, 20_904_065),
        ((197, 233, 189), 53_760, 28_768_385),
        ((193, 229, 193), 64_512, 34_273_409),
        ((256, 256, 256), 131_072, 68_352_129),
        ((113, 137, 113), 9_216, 5_961_857),
        ((91, 109, 91), 3_072, 2_816_129),
        ((96, 96, 96), 6_912, 4_782_209),
        ((64, 64, 64), 2_048, 2_291_841),
        ((32, 32, 32), 256, 1_374_337),
    ],
)
def test_vgg8_size_follows_the_grid(shape, flat, total):
    with torch.device('meta'):
        model = create_model('vgg8', input_shape=shape)
    assert model.head[0].in_features == flat
    assert count(model) == total
    assert count(model.features) == 1_176_960


def test_vgg8_block_shapes_at_the_published_grid():
    with torch.device('meta'):
        model = create_model('vgg8')
        x = torch.empty(1, 1, 182, 218, 182)
    shapes = []
    for block in model.features:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (16, 91, 109, 91),
        (32, 45, 54, 45),
        (64, 22, 27, 22),
        (128, 11, 13, 11),
        (256, 5, 6, 5),
    ]


def test_vgg8_has_eight_weight_layers_and_no_dropout():
    model = create_model('vgg8', input_shape=[32, 32, 32])
    kinds = [type(m).__name__ for m in model.modules()]
    assert kinds.count('Conv3d') == 5
    assert kinds.count('Linear') == 3
    assert 'Dropout' not in ''.join(kinds)


def test_vgg8_can_end_early_with_a_line():
    options = {'input_shape': [21, 25, 21], 'blocks': 2, 'hidden': []}
    model = create_model('vgg8', **options).eval()
    assert model.head[0].weight.shape == (1, 32 * 5 * 6 * 5)
    assert model.get_submodule(model.gradcam_layer).out_channels == 32
    assert model.get_submodule(model.output_layer) is model.head[0]
    image = torch.rand(2, 1, 21, 25, 21)
    assert torch.equal(model(image), model.head[0](model.features(image).flatten(1)).flatten())
    for wrong in ({'blocks': 0}, {'blocks': 6}, {'hidden': [0]}):
        with pytest.raises(OptionError, match='expected blocks from 1 to 5'):
            create_model('vgg8', **{**options, **wrong})


def test_vgg8_refuses_other_grids():
    with pytest.raises(UnusableImageError, match='at least 32'):
        create_model('vgg8', input_shape=[31, 32, 32])
    model = create_model('vgg8', input_shape=[32, 32, 32]).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 1, 32, 32, 32)).shape == (2,)
    with pytest.raises(UnusableImageError, match='expected'):
        model(torch.rand(1, 1, 33, 32, 32))
