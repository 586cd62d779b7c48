"""System A: exact sizes, shapes, switches, and equivalences with straightforward formulas."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bids_brainage.errors import UnusableImageError
from bids_brainage.models import create_model
from bids_brainage.models.cot_resnet import NEIGHBOURS, SE3D, CoT3D, neighbourhood_sum, se_width
from bids_brainage.models.transformer import (
    CrossAttention,
    EncoderBlock,
    axis_widths,
    keep_random_tokens,
    positional_code,
)

FLOAT32_TOLERANCE = 1e-5
PUBLISHED = (84, 102, 84)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return create_model('resnet_crossvit').eval()


@pytest.fixture(scope='module')
def volume():
    return torch.rand((1, 1, *PUBLISHED), generator=torch.Generator().manual_seed(1))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts(model):
    backbone = model.backbone
    assert count(model) == 12_039_125
    assert count(backbone) == 9_816_144
    assert count(model) - count(backbone) == 2_222_981
    assert count(backbone.stem) == 22_080
    stages = [count(backbone.get_submodule(f'stage{n}')) for n in (1, 2, 3)]
    assert stages == [442_880, 1_871_896, 7_479_288]
    assert [count(CoT3D(128)), count(CoT3D(256))] == [148_716, 592_316]
    assert [count(SE3D(128)), count(SE3D(256))] == [8_352, 33_088]
    assert [count(model.embed_small), count(model.embed_large)] == [196_704, 164_000]
    parts = ('self_small', 'self_large', 'cross_small', 'cross_large')
    totals = [sum(count(layer.get_submodule(part)) for layer in model.layers) for part in parts]
    assert totals == [224_064, 619_200, 418_498, 549_698]
    assert count(model.norm_small) + count(model.norm_large) == 512
    assert count(model.readout) == 50_049


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'se_stages': [1, 2, 3]}, 12_043_381),
        ({'cot': False}, 12_039_125 - 2 * 148_716 - 2 * 592_316),
        ({'sa_blocks': 2}, 12_882_389),
        ({'depth': 3}, 12_944_855),
        ({'depth': 3, 'dims': [512, 512]}, 52_591_063),
        ({'channels': [16, 32, 64], 'dims': [48, 80]}, 1_148_141),
    ],
)
def test_other_readings_of_the_paper_stay_reachable(options, expected):
    assert count(create_model('resnet_crossvit', **options)) == expected


def test_shapes_at_the_published_grid(model, volume):
    seen = {}
    names = ['backbone.pool', 'backbone.stage1']
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
        )
        for name in names
    ]
    with torch.no_grad():
        stage2, stage3 = model.backbone(volume)
        small, _ = model.tokens(stage3, model.embed_small, model.cls_small)
        large, _ = model.tokens(stage2, model.embed_large, model.cls_large)
        maps = model.attention_maps(volume)
    for hook in hooks:
        hook.remove()
    assert seen == {name: (64, 21, 26, 21) for name in names}
    assert tuple(stage2.shape[1:]) == (128, 11, 13, 11)
    assert tuple(stage3.shape[1:]) == (256, 6, 7, 6)
    assert tuple(small.shape) == (1, 28, 96)
    assert tuple(large.shape) == (1, 151, 160)
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        'small': (1, 3, 3, 3),
        'large': (1, 5, 6, 5),
    }
    for weights in maps.values():
        assert float(weights.sum()) == pytest.approx(1, abs=FLOAT32_TOLERANCE)


def test_test_grid_and_smallest_grid(model):
    with torch.no_grad():
        stage2, stage3 = model.backbone(torch.rand(1, 1, 32, 32, 32))
        assert tuple(stage2.shape[2:]) == (4, 4, 4)
        assert tuple(stage3.shape[2:]) == (2, 2, 2)
        assert model.tokens(stage3, model.embed_small, model.cls_small)[0].shape[1:] == (2, 96)
        assert model.tokens(stage2, model.embed_large, model.cls_large)[0].shape[1:] == (9, 160)
        assert torch.isfinite(model(torch.rand(1, 1, 17, 17, 17))).all()
    with pytest.raises(UnusableImageError, match='at least 17'):
        model(torch.rand(1, 1, 17, 16, 17))


@pytest.mark.parametrize(('grid', 'half'), [((11, 13, 11), (6, 7, 6)), ((6, 7, 6), (3, 4, 3))])
def test_cot_weights_stand_on_the_ceiled_half_grid(grid, half):
    cot = CoT3D(128).eval()
    x = torch.rand(1, 128, *grid)
    weights = cot.kernel_weights(x, cot.pool(x))
    assert tuple(weights.shape) == (1, 27, *half)
    assert torch.allclose(weights.sum(1), torch.ones(1, *half), atol=FLOAT32_TOLERANCE)
    assert float(cot.gate.detach()) == 0.5


def test_border_cells_are_means_of_real_voxels_only():
    pooled = CoT3D(64).pool(torch.ones(1, 64, 3, 3, 3))
    assert torch.equal(pooled, torch.ones(1, 64, 2, 2, 2))


def test_neighbourhood_sum_equals_unfolded_sum():
    torch.manual_seed(0)
    values = torch.rand(2, 5, 4, 3, 5, dtype=torch.float64)
    weights = torch.rand(2, 27, 4, 3, 5, dtype=torch.float64)
    padded = F.pad(values, (1,) * 6)
    unfolded = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1).flatten(5)
    expected = torch.einsum('bcxyzn,bnxyz->bcxyz', unfolded, weights)
    assert torch.allclose(neighbourhood_sum(values, weights), expected, atol=1e-12)
    assert NEIGHBOURS[13] == (1, 1, 1)


def test_neighbourhood_sum_gradient():
    torch.manual_seed(0)
    values = torch.rand(1, 2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 27, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(neighbourhood_sum, (values, weights))


def test_se_widths():
    assert [se_width(n) for n in (16, 64, 128, 256)] == [8, 16, 32, 64]


def test_positional_code():
    assert axis_widths(96) == (32, 32, 32)
    assert axis_widths(160) == (54, 54, 52)
    assert axis_widths(128) == (42, 42, 44)
    code = positional_code((5, 6, 5), 160)
    assert code.shape == (150, 160)
    # Cell (3, 4, 2) is row 3 * 30 + 4 * 5 + 2: axis 0 varies slowest.
    row = code[3 * 30 + 4 * 5 + 2]
    assert row[2] == pytest.approx(np.sin(3 * 10000 ** (-2 / 54)), abs=1e-6)
    assert row[54 + 3] == pytest.approx(np.cos(4 * 10000 ** (-2 / 54)), abs=1e-6)
    assert row[108] == pytest.approx(np.sin(2), abs=1e-6)


def test_class_token_carries_no_position(model):
    with torch.no_grad():
        tokens, _ = model.tokens(torch.zeros(1, 256, 6, 7, 6), model.embed_small, model.cls_small)
    assert torch.equal(tokens[:, :1], model.cls_small)
    expected = positional_code((3, 3, 3), 96)
    np.testing.assert_allclose(tokens[0, 1:].numpy(), expected, atol=FLOAT32_TOLERANCE)


def test_self_attention_block_equals_its_formula():
    torch.manual_seed(0)
    block = EncoderBlock(12, 4, dropout=0.1, path_rate=0.1, layer_scale=0.5).eval().double()
    x = torch.rand(2, 7, 12, dtype=torch.float64)
    query, key, value = block.attention.qkv(block.norm1(x)).chunk(3, dim=-1)
    heads = []
    for h in range(4):
        s = slice(3 * h, 3 * h + 3)
        weights = (query[..., s] @ key[..., s].transpose(1, 2) / 3**0.5).softmax(-1)
        heads.append(weights @ value[..., s])
    expected = x + 0.5 * block.attention.project(torch.cat(heads, -1))
    expected = expected + 0.5 * block.mlp(block.norm2(expected))
    assert torch.allclose(block(x), expected, atol=1e-12)


def test_cross_attention_sees_the_other_streams_patches_only():
    torch.manual_seed(0)
    cross = CrossAttention(96, 160, 4, 0.1, 0.0, 1.0, 0.1).eval()
    cls, patches = torch.rand(1, 1, 96), torch.rand(1, 9, 160)
    out, attention = cross(cls, patches)
    order = torch.randperm(9)
    permuted_out, permuted_attention = cross(cls, patches[:, order])
    assert torch.allclose(out, permuted_out, atol=FLOAT32_TOLERANCE)
    assert torch.allclose(attention[:, order], permuted_attention, atol=FLOAT32_TOLERANCE)
    with torch.no_grad():
        cross.gate.zero_()
        closed, _ = cross(cls, patches)
        assert torch.allclose(closed, cls + cross.mlp(cross.norm(cls)))


def test_initial_values(model):
    layer = model.layers[0]
    assert torch.all(layer.self_small[0].scale1 == 1e-4)
    assert torch.all(layer.cross_large.scale2 == 1e-4)
    assert layer.cross_small.gate.item() == pytest.approx(0.1)
    assert [layer.self_small[0].path_rate for layer in model.layers] == pytest.approx([0.0, 0.1])
    assert model.cls_small.std().item() == pytest.approx(0.02, abs=0.01)
    other = create_model('resnet_crossvit', layer_scale_init=1.0)
    assert torch.all(other.layers[1].self_large[0].scale2 == 1)


def test_output_bias_helper():
    torch.manual_seed(0)
    model = create_model('resnet_crossvit').eval()
    x = torch.rand(1, 1, 17, 17, 17)
    with torch.no_grad():
        before = model(x)
        model.set_output_bias(43.5)
        assert float(model(x) - before) == pytest.approx(43.5, abs=1e-4)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = create_model('resnet_crossvit', drop_path=0.0)
    model.train()
    # Two patches in the small stream, so that there is something to choose between.
    model(torch.rand(2, 1, 49, 17, 17)).sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias of the keys shifts all scores alike, which softmax ignores.
    assert not [name for name in idle if not name.endswith('key.bias')]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_token_keep_rate_acts_in_training_only():
    tokens = torch.arange(24.0).reshape(1, 12, 2).repeat(3, 1, 1)
    kept = keep_random_tokens(tokens, 0.5)
    assert tuple(kept.shape) == (3, 6, 2)
    assert torch.all(kept[:, 1:, 0] > kept[:, :-1, 0])
    assert keep_random_tokens(tokens, 0.001).shape[1] == 1
    model = create_model('resnet_crossvit', token_keep_rate=0.5)
    feature_map = torch.rand(2, 128, 4, 4, 4)
    assert model.train().tokens(feature_map, model.embed_large, model.cls_large)[0].shape[1] == 5
    assert model.eval().tokens(feature_map, model.embed_large, model.cls_large)[0].shape[1] == 9


def test_frozen_backbone_keeps_its_statistics():
    model = create_model('resnet_crossvit', freeze_backbone=True).train()
    before = model.backbone.stem[1].running_mean.clone()
    model(torch.rand(2, 1, 17, 17, 17)).sum().backward()
    assert torch.equal(model.backbone.stem[1].running_mean, before)
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.readout[4].weight.grad is not None
    assert model.readout.training


def test_batch_and_repeat_do_not_change_an_age(model):
    x = torch.rand(3, 1, 32, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(sample[None]) for sample in x])
        assert torch.equal(model(x), together)
    assert together.shape == (3,)
    assert torch.allclose(together, alone, atol=FLOAT32_TOLERANCE)


def phantoms(n, generator, grid):
    """Draw shells whose hole grows and whose density falls with age; values and years."""
    axes = [torch.linspace(-1, 1, size) for size in grid]
    radius = sum(a**2 for a in torch.meshgrid(*axes, indexing='ij')).sqrt()
    age = 20 + 70 * torch.rand(n, generator=generator)
    outer = (0.85 + 0.05 * torch.rand(n, generator=generator)).view(-1, 1, 1, 1)
    inner = (0.15 + 0.35 * (age - 20) / 70).view(-1, 1, 1, 1)
    density = (1 - 0.003 * (age - 20)).view(-1, 1, 1, 1)
    shells = ((radius < outer) & (radius > inner)) * density
    noise = 0.05 * torch.randn(shells.shape, generator=generator)
    return (shells + noise)[:, None], age


@pytest.mark.slow
@pytest.mark.parametrize(('grid', 'steps'), [((32, 32, 32), 160), ((42, 51, 42), 120)])
def test_it_learns_age_from_a_phantom(grid, steps):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = create_model('resnet_crossvit').train()
    model.set_output_bias(55.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-5)
    for _ in range(steps):
        x, age = phantoms(8, generator, grid)
        optimiser.zero_grad()
        F.mse_loss(model(x), age).backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        x, age = phantoms(32, generator, grid)
        predicted = model(x)
    assert torch.corrcoef(torch.stack((predicted, age)))[0, 1] > 0.8
