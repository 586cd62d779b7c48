"""System D, AMAge-Net: structure and functional connectivity fused by attention.

Wan et al., "Attention-Guided Multimodal Neuroimaging Fusion Network for Modeling Brain
Aging Pattern" (doi:10.64898/2026.03.28.713645).  The graph module is not published; ours
(`bids_brainage.models.graph_attention`) keeps its interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.models.base import AgeRegressor
from bids_brainage.models.densenet import DenseNetFeatures
from bids_brainage.models.graph_attention import HierarchicalGraphAttention

BLOCKS = (6, 12, 24, 16)
N_NODES = 90
WIDTH = 64
GRAPH_OUT = 32
HEADS = 4

Modality = Literal['both', 'structural', 'functional']
Fusion = Literal['gated', 'cross_only', 'concatenated', 'structural', 'functional']
FUSIONS: tuple[str, ...] = get_args(Fusion)


@dataclass(frozen=True)
class FusionDetails:
    """One prediction with what led to it; B samples.

    Attributes
    ----------
    age : Tensor, shape (B,)
        Years.
    modality : {'both', 'structural', 'functional'}
        What the prediction rests on.
    gate : Tensor, shape (B,)
        Weight of the cross-attended functional token in the fusion, 0 to 1; the mean
        structural token has the rest.  Exactly 0 without connectivity, exactly 1 without an
        image and with ``fusion='cross_only'``.
    node_importance : Tensor, shape (B, n_nodes), or None
        Attention over the nodes, sums to 1; None without connectivity.
    attention : Tensor, shape (B, X', Y', Z'), or None
        Head-averaged cross-attention over the structural tokens on their coarse grid (4 x 4
        x 4 for 128 voxels), sums to 1; None unless both modalities are given.
    """

    age: Tensor
    modality: Modality
    gate: Tensor
    node_importance: Tensor | None
    attention: Tensor | None


class CrossAttention(nn.Module):
    """Post-norm transformer block in which one functional token reads structural tokens.

    Parameters
    ----------
    width : int
        Channels of a token.
    heads : int
        Attention heads.
    """

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.norm2 = nn.LayerNorm(width)

    def forward(self, query: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Update the query.

        Parameters
        ----------
        query : Tensor, shape (B, 1, width)
            Functional token.
        tokens : Tensor, shape (B, T, width), or None
            Structural tokens; None leaves the attention update out and keeps the rest of
            the block, so that the regressor sees a token of the kind it was trained on.

        Returns
        -------
        query : Tensor, shape (B, 1, width)
            Updated token.
        weights : Tensor, shape (B, T), or None
            Mean over the heads.
        """
        weights = None
        if tokens is not None:
            update, weights = self.attention(query, tokens, tokens, need_weights=True)
            query = query + update
            weights = weights.squeeze(1)
        query = self.norm1(query)
        query = self.norm2(query + self.feed_forward(query))
        return query, weights


class AMAgeNet(AgeRegressor):
    """Age from a T1w volume and a connectivity matrix, or from one of them.

    With one modality missing the network still predicts and says so: without connectivity
    the mean structural token goes alone to the regressor (gate 0); without an image the
    functional token does (gate 1), after the cross-attention block without its attention
    update.

    Parameters
    ----------
    n_nodes : int
        Nodes of the connectivity matrix (90 cerebral AAL regions in the paper).
    age_range : tuple of float
        Youngest and oldest age of the training fold in years.  The network is trained on
        ages scaled to [0, 1] by them; its output is scaled back.
    fusion : {'gated', 'cross_only', 'concatenated', 'structural', 'functional'}
        The gate of the paper; or, to see what each part brings, the cross-attended token alone (as
        in the released forward pass), both tokens side by side through a linear layer, or one
        modality without the other, whatever it is given.  ``'structural'`` has no layers for
        connectivity.
    blocks : sequence of int
        Layers of the four dense blocks of the image encoder; 0 leaves out a block, but not the
        transition before it.
    """

    gradcam_layer = 'image_encoder'
    output_layer = 'regressor.2'
    saliency_methods: tuple[str, ...] = ('attention', 'gradcam')

    def __init__(
        self,
        *,
        n_nodes: int = N_NODES,
        age_range: tuple[float, float] = (0.0, 100.0),
        fusion: Fusion = 'gated',
        blocks: Sequence[int] = BLOCKS,
    ) -> None:
        super().__init__()
        self.age_min, self.age_max = (float(age) for age in age_range)
        if not self.age_max > self.age_min:
            raise OptionError(f'age_range must rise, found {tuple(age_range)}.')
        if fusion not in FUSIONS:
            raise OptionError(f'fusion must be {" or ".join(FUSIONS)}, found {fusion!r}.')
        self.n_nodes = n_nodes
        self.fusion = fusion
        self.image_encoder = DenseNetFeatures(blocks, nn.ReLU)
        self.image_projection = nn.Linear(self.image_encoder.out_channels, WIDTH)
        if fusion == 'structural':
            self.saliency_methods = ('guided_backprop', 'gradcam')
        else:
            self._build_fusion()
        self.regressor = nn.Sequential(
            nn.Linear(WIDTH, WIDTH // 2), nn.ReLU(), nn.Linear(WIDTH // 2, 1)
        )

    def _build_fusion(self) -> None:
        """Build what reads connectivity and joins it with the image."""
        self.graph_encoder = HierarchicalGraphAttention(self.n_nodes, WIDTH, GRAPH_OUT, HEADS)
        self.graph_projection = nn.Linear(GRAPH_OUT, WIDTH)
        self.cross_attention = CrossAttention()
        self.gate = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        if self.fusion == 'concatenated':
            self.join = nn.Linear(2 * WIDTH, WIDTH)

    def set_output_bias(self, mean_age: float) -> None:
        """Start the output at the mean age (years) of the training set."""
        super().set_output_bias((mean_age - self.age_min) / (self.age_max - self.age_min))

    def _tokens(self, image: Tensor) -> tuple[Tensor, torch.Size]:
        """Structural tokens ``(B, T, 64)`` and their coarse grid."""
        features = self.image_encoder(image)
        tokens: Tensor = self.image_projection(features.flatten(2).transpose(1, 2))
        return tokens, features.shape[2:]

    def _gate(self, crossed: Tensor, structural: Tensor) -> Tensor:
        """Weight ``(B, 1)`` of the cross-attended token."""
        if self.fusion == 'cross_only':
            return crossed.new_ones(crossed.shape[0], 1)
        return torch.sigmoid(self.gate(torch.cat([crossed, structural], dim=1)))

    def forward_details(
        self, image: Tensor | None, connectivity: Tensor | None = None
    ) -> FusionDetails:
        """Predict and report gate, node importances and attention.

        Parameters
        ----------
        image : Tensor, shape (B, 1, 128, 128, 128), or None
            T1w brain, min-max scaled to [0, 1]
            (`bids_brainage.inputs.connectivity.prepare_structural`); any grid of at
            least 32 voxels an axis.
        connectivity : Tensor, shape (B, n_nodes, n_nodes), or None
            Pearson correlations with diagonal 1
            (`bids_brainage.inputs.connectivity.clean_connectivity`).

        Returns
        -------
        FusionDetails
            Of B samples.

        Raises
        ------
        UnusableImageError
            Both modalities are missing.
        """
        if self.fusion == 'structural':
            connectivity = None
        if self.fusion == 'functional':
            image = None
        if image is None and connectivity is None:
            raise UnusableImageError(
                f'AMAge-Net ({self.fusion}): expected an image, a connectivity matrix or both, '
                'found neither of those that it takes.'
            )
        tokens, grid, query, importance = None, None, None, None
        if image is not None:
            tokens, grid = self._tokens(image)
        if connectivity is not None:
            graph, importance = self.graph_encoder(connectivity)
            query = self.graph_projection(graph).unsqueeze(1)
        return self._fuse(tokens, grid, query, importance)

    def _fuse(
        self,
        tokens: Tensor | None,
        grid: torch.Size | None,
        query: Tensor | None,
        importance: Tensor | None,
    ) -> FusionDetails:
        """Join what there is and regress the age."""
        attention: Tensor | None = None
        modality: Modality = 'both'
        if query is None:
            assert tokens is not None
            modality = 'structural'
            fused = tokens.mean(dim=1)
            gate = fused.new_zeros(fused.shape[0], 1)
        else:
            crossed, weights = self.cross_attention(query, tokens)
            fused = crossed.squeeze(1)
            if tokens is None or weights is None or grid is None:
                modality = 'functional'
                gate = fused.new_ones(fused.shape[0], 1)
            else:
                structural = tokens.mean(dim=1)
                gate = self._gate(fused, structural)
                if self.fusion == 'concatenated':
                    fused = self.join(torch.cat([fused, structural], dim=1))
                    gate = torch.full_like(gate, torch.nan)  # there is none
                else:
                    fused = gate * fused + (1 - gate) * structural
                attention = weights.reshape(-1, *grid)
        scaled = self.regressor(fused).squeeze(1)
        age = self.age_min + (self.age_max - self.age_min) * scaled
        return FusionDetails(age, modality, gate.squeeze(1), importance, attention)

    def forward(self, image: Tensor | None, connectivity: Tensor | None = None) -> Tensor:
        """Predict the age in years, shape ``(B,)``; see `forward_details`."""
        return self.forward_details(image, connectivity).age

    def attention_maps(
        self, image: Tensor | None, connectivity: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross-attention over the structural tokens.

        Returns
        -------
        dict
            ``'cross'``: Tensor ``(B, X', Y', Z')``, sums to 1 over the coarse grid; empty
            unless both modalities are given.
        """
        attention = self.forward_details(image, connectivity).attention
        return {} if attention is None else {'cross': attention}
