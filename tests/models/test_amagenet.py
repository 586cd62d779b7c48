"""System D: size, tokens, graph attention, gate, and what happens without a modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.inference.saliency import explain
from bids_brainage.models.amagenet import AMAgeNet
from bids_brainage.models.graph_attention import HierarchicalGraphAttention

PART_SIZES = {
    'image_encoder': 11_242_624,
    'image_projection': 65_600,
    'graph_encoder': 16_545,
    'graph_projection': 2_112,
    'cross_attention': 33_472,
    'gate': 8_321,
    'regressor': 2_113,
}
SUM_TOLERANCE = 1e-5
AGE_TOLERANCE = 1e-4
N_NODES = 12


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return AMAgeNet(n_nodes=N_NODES, age_range=(18, 90)).eval()


@pytest.fixture(scope='module')
def inputs():
    generator = torch.Generator().manual_seed(1)
    series = torch.randn(2, N_NODES, 50, generator=generator)
    connectivity = torch.stack([torch.corrcoef(s) for s in series])
    return torch.rand(2, 1, 32, 40, 32, generator=generator), connectivity


def test_parameter_counts():
    with torch.device('meta'):
        network = AMAgeNet()
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()
    }
    assert counts == PART_SIZES
    assert sum(p.numel() for p in network.parameters()) == 11_370_787


def test_full_size_has_64_tokens():
    with torch.device('meta'):
        network = AMAgeNet().eval()
        tokens, grid = network._tokens(torch.empty(1, 1, 128, 128, 128))
        details = network.forward_details(torch.empty(3, 1, 128, 128, 128), torch.empty(3, 90, 90))
    assert tokens.shape == (1, 64, 64)
    assert tuple(grid) == (4, 4, 4)
    assert details.age.shape == details.gate.shape == (3,)
    assert details.node_importance.shape == (3, 90)
    assert details.attention.shape == (3, 4, 4, 4)


def test_fusion_is_the_reported_gate(network, inputs):
    with torch.no_grad():
        details = network.forward_details(*inputs)
        tokens, _ = network._tokens(inputs[0])
        graph, _ = network.graph_encoder(inputs[1])
        crossed, _ = network.cross_attention(network.graph_projection(graph)[:, None], tokens)
        gate = details.gate[:, None]
        fused = gate * crossed[:, 0] + (1 - gate) * tokens.mean(1)
        age = 18 + 72 * network.regressor(fused)[:, 0]
        assert torch.equal(network(*inputs), details.age)
    assert details.modality == 'both'
    assert ((details.gate > 0) & (details.gate < 1)).all()
    torch.testing.assert_close(details.age, age, atol=AGE_TOLERANCE, rtol=0)


def test_importances_and_attention_are_distributions(network, inputs):
    with torch.no_grad():
        details = network.forward_details(*inputs)
        maps = network.attention_maps(*inputs)
    for weights in (details.node_importance, details.attention.flatten(1)):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(2), atol=SUM_TOLERANCE, rtol=0)
    assert torch.equal(maps['cross'], details.attention)


def test_without_connectivity_the_mean_structural_token_decides(network, inputs):
    with torch.no_grad():
        details = network.forward_details(inputs[0], None)
        tokens, _ = network._tokens(inputs[0])
        expected = 18 + 72 * network.regressor(tokens.mean(1))[:, 0]
    assert details.modality == 'structural'
    assert details.gate.tolist() == [0, 0]
    assert details.node_importance is None
    assert details.attention is None
    torch.testing.assert_close(details.age, expected, atol=AGE_TOLERANCE, rtol=0)


def test_without_image_the_functional_token_decides(network, inputs):
    with torch.no_grad():
        details = network.forward_details(None, inputs[1])
        both = network.forward_details(*inputs)
        swapped = network.forward_details(None, inputs[1].flip(0))
    assert details.modality == 'functional'
    assert details.gate.tolist() == [1, 1]
    assert torch.equal(details.node_importance, both.node_importance)
    assert details.attention is None
    torch.testing.assert_close(swapped.age.flip(0), details.age, atol=AGE_TOLERANCE, rtol=0)
    assert network.attention_maps(None, inputs[1]) == {}


def test_nothing_at_all_is_refused(network):
    with pytest.raises(UnusableImageError, match='neither'):
        network(None, None)


def test_cross_only_fusion_has_gate_one(inputs):
    torch.manual_seed(0)
    network = AMAgeNet(n_nodes=N_NODES, fusion='cross_only').eval()
    with torch.no_grad():
        assert network.forward_details(*inputs).gate.tolist() == [1, 1]


@pytest.mark.parametrize(('fusion', 'ignored'), [('structural', 1), ('functional', 0)])
def test_ablations_ignore_one_modality(inputs, fusion, ignored):
    torch.manual_seed(0)
    network = AMAgeNet(n_nodes=N_NODES, fusion=fusion).eval()
    one = [None if k == ignored else x for k, x in enumerate(inputs)]
    other = [torch.rand_like(x) if k == ignored else x for k, x in enumerate(inputs)]
    with torch.no_grad():
        ages = [network(*given) for given in (inputs, one, other)]
    assert torch.equal(ages[0], ages[1]) and torch.equal(ages[0], ages[2])
    assert network.forward_details(*inputs).modality == fusion
    with pytest.raises(UnusableImageError, match='neither of those that it takes'):
        network(*(x if k == ignored else None for k, x in enumerate(inputs)))


def test_structure_alone_has_no_layers_for_connectivity_and_is_explained_on_the_image(inputs):
    torch.manual_seed(0)
    network = AMAgeNet(n_nodes=N_NODES, fusion='structural').eval()
    assert not any(name.startswith(('graph', 'cross', 'gate')) for name in network.state_dict())
    for method in network.saliency_methods:
        (values,) = explain(method, network, (inputs[0][:1], None), relu=False).values()
        assert values.shape == inputs[0].shape[2:] and np.isfinite(values).all()


def test_concatenation_takes_both_and_has_no_gate(inputs):
    torch.manual_seed(0)
    network = AMAgeNet(n_nodes=N_NODES, fusion='concatenated').eval()
    with torch.no_grad():
        found = network.forward_details(*inputs)
        changed = [network(torch.rand_like(inputs[0]), inputs[1]),
                   network(inputs[0], torch.eye(N_NODES).expand_as(inputs[1]))]  # fmt: skip
    assert found.gate.isnan().all() and found.attention is not None
    assert all(not torch.equal(found.age, other) for other in changed)
    assert 'join.weight' in network.state_dict()
    assert 'join.weight' not in AMAgeNet(n_nodes=N_NODES).state_dict()


def test_graph_attention_reads_positive_neighbours_only():
    torch.manual_seed(0)
    encoder = HierarchicalGraphAttention(4, 64, 32, 4).layer1
    features = torch.randn(1, 4, 4)
    neighbours = torch.eye(4, dtype=torch.bool)[None].clone()
    neighbours[0, 0, 1] = True
    changed = features.clone()
    changed[0, 1] += 1
    before, after = encoder(features, neighbours), encoder(changed, neighbours)
    moved = (before - after).abs().amax(dim=2)[0] > 0
    assert moved.tolist() == [True, True, False, False]


def test_every_parameter_learns_and_output_bias_is_scaled(inputs):
    torch.manual_seed(0)
    network = AMAgeNet(n_nodes=N_NODES, age_range=(18, 90))
    network.set_output_bias(54.0)
    assert network.regressor[2].bias.item() == pytest.approx(0.5)
    network(*inputs).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_bad_options_are_refused():
    with pytest.raises(OptionError, match='rise'):
        AMAgeNet(age_range=(50, 50))
    with pytest.raises(OptionError, match='fusion'):
        AMAgeNet(fusion='sum')
