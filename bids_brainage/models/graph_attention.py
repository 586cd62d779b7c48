"""Hierarchical graph attention on dense connectivity matrices.

Edge-level attention twice (Velickovic et al. 2018, "Graph Attention Networks",
arXiv:1710.10903), then one attention over the nodes, whose weights are the importances of
the nodes.  Graphs have a hundred nodes, so everything is dense and masked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2


class GraphAttention(nn.Module):
    """Multi-head attention over the neighbours of each node, heads concatenated.

    Parameters
    ----------
    in_features, out_features : int
        Channels of a node before and after; `out_features` is shared among the heads.
    heads : int
        Attention heads.
    """

    def __init__(self, in_features: int, out_features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(in_features, out_features, bias=False)
        self.receive = nn.Parameter(torch.empty(heads, out_features // heads))
        self.send = nn.Parameter(torch.empty(heads, out_features // heads))
        self.bias = nn.Parameter(torch.zeros(out_features))
        for weight in (self.project.weight, self.receive, self.send):
            nn.init.xavier_uniform_(weight)

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        """Mix each node with its neighbours.

        Parameters
        ----------
        nodes : Tensor, shape (B, N, in_features)
            Node features.
        neighbours : Tensor of bool, shape (B, N, N)
            True at ``[b, i, j]`` where node i may read node j.

        Returns
        -------
        Tensor, shape (B, N, out_features)
            After ELU.
        """
        z = self.project(nodes).unflatten(2, (self.heads, -1))
        receive = torch.einsum('bnhf,hf->bhn', z, self.receive)
        send = torch.einsum('bnhf,hf->bhn', z, self.send)
        scores = F.leaky_relu(receive.unsqueeze(3) + send.unsqueeze(2), NEGATIVE_SLOPE)
        scores = scores.masked_fill(~neighbours.unsqueeze(1), float('-inf'))
        mixed = torch.einsum('bhij,bjhf->bihf', scores.softmax(dim=3), z)
        return F.elu(mixed.flatten(2) + self.bias)


class HierarchicalGraphAttention(nn.Module):
    """Summary of a connectivity graph with an importance for every node.

    Parameters
    ----------
    n_nodes : int
        Nodes; each node's features are its row of the matrix.
    hidden, out_features : int
        Channels inside and of the summary.
    heads : int
        Heads of the edge-level attention.
    """

    def __init__(self, n_nodes: int, hidden: int, out_features: int, heads: int) -> None:
        super().__init__()
        self.layer1 = GraphAttention(n_nodes, hidden, heads)
        self.layer2 = GraphAttention(hidden, hidden, heads)
        self.node_score = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.readout = nn.Linear(hidden, out_features)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, connectivity: Tensor) -> tuple[Tensor, Tensor]:
        """Summarise a graph.

        Parameters
        ----------
        connectivity : Tensor, shape (B, N, N)
            Correlations; nodes are neighbours where they are positive, and of themselves.

        Returns
        -------
        summary : Tensor, shape (B, out_features)
            Importance-weighted read-out.
        importance : Tensor, shape (B, N)
            Positive, sums to 1 over the nodes.
        """
        itself = torch.eye(connectivity.shape[-1], dtype=torch.bool, device=connectivity.device)
        neighbours = (connectivity > 0) | itself
        nodes = self.layer2(self.layer1(connectivity, neighbours), neighbours)
        importance = self.node_score(nodes).squeeze(2).softmax(dim=1)
        summary = self.readout(torch.einsum('bn,bnf->bf', importance, nodes))
        return summary, importance
