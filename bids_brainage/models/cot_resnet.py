"""CoTResNet3D, the convolutional branch of System A.

Zhu et al., Bioengineering 2026, 13(3):315 (doi:10.3390/bioengineering13030315); contextual
transformer block after Li et al., IEEE TPAMI 2022 (doi:10.1109/TPAMI.2022.3164083);
squeeze-and-excitation after Hu et al., CVPR 2018 (doi:10.1109/CVPR.2018.00745).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from torch import Tensor, nn
from torch import cat as concat
from torch import full as full_tensor
from torch.nn import functional as F

#: Channels after the stem (and stage 1), stage 2 and stage 3.
STAGE_CHANNELS = (64, 128, 256)
NEIGHBOURS = tuple(product((0, 1, 2), repeat=3))
GATE_INIT = 0.5


def conv_bn(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return convolution without bias, 'same' padding, followed by BatchNorm."""
    conv = nn.Conv3d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out))


def se_width(channels: int) -> int:
    """Return C/4 rounded to the nearest multiple of 8, at least 8."""
    return max(8, int(channels / 4 / 8 + 0.5) * 8)


class SE3D(nn.Module):
    """Squeeze-and-excitation: one factor in (0, 1) per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_width(channels)
        self.squeeze = nn.AdaptiveAvgPool3d(1)
        self.reduce = nn.Conv3d(channels, hidden, 1)
        self.expand = nn.Conv3d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, X, Y, Z) with its channels rescaled."""
        weight = self.expand(F.relu(self.reduce(self.squeeze(x))))
        scaled: Tensor = x * weight.sigmoid()
        return scaled


def neighbourhood_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sum the 27 neighbours of every voxel with weights of their own.

    Parameters
    ----------
    values : Tensor, shape (B, C, X, Y, Z)
        Zero beyond its border.
    weights : Tensor, shape (B, 27, X, Y, Z)
        One set for all channels; neighbour order is lexicographic over
        (dx, dy, dz) in {-1, 0, 1}^3.

    Returns
    -------
    Tensor, shape (B, C, X, Y, Z)
        ``out[v] = sum_n weights[n, v] * values[v + n]``, as 27 shifted multiply-adds, so
        that 27 C channels never exist in memory.
    """
    nx, ny, nz = values.shape[2:]
    padded = F.pad(values, (1,) * 6)
    out = values.new_zeros(values.shape)
    for index, (i, j, k) in enumerate(NEIGHBOURS):
        shifted = padded[:, :, i : i + nx, j : j + ny, k : k + nz]
        out = out.addcmul_(shifted, weights[:, index : index + 1])
    return out


class CoT3D(nn.Module):
    """Contextual transformer with dynamic 3x3x3 kernels, one per voxel of a half grid.

    ``out = x + g * y``: static context from a grouped convolution joins ``x`` to decide the
    27 neighbour weights by which the value branch is gathered.

    Parameters
    ----------
    channels : int
        C; the weight branch narrows to C/8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.context = conv_bn(channels, channels, 3, groups=4)
        self.pool = nn.AvgPool3d(2, ceil_mode=True, count_include_pad=False)
        self.narrow = conv_bn(2 * channels, channels // 8, 1)
        self.weights = nn.Conv3d(channels // 8, len(NEIGHBOURS), 1)
        self.value = conv_bn(channels, channels, 1)
        self.project = conv_bn(channels, channels, 1)
        self.gate = nn.Parameter(full_tensor((1,), GATE_INIT))

    def kernel_weights(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Return the neighbour weights (B, 27, ...) on the half grid; they sum to 1."""
        context = F.relu(self.context(x))
        query = concat((self.pool(context), pooled), dim=1)
        weights: Tensor = self.weights(F.relu(self.narrow(query))).softmax(dim=1)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, X, Y, Z) from the same shape."""
        pooled = self.pool(x)
        y = neighbourhood_sum(self.value(pooled), self.kernel_weights(x, pooled))
        y = F.interpolate(self.project(y), size=x.shape[2:], mode='trilinear', align_corners=False)
        out: Tensor = x + self.gate * y
        return out


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions, then optional CoT, SE and dropout, and a shortcut.

    Parameters
    ----------
    inp, out : int
        Channels.
    stride : int
        Of the first convolution and of the shortcut.
    cot, se : bool
        Whether the residual branch has these modules.
    dropout : float
        Probability of dropping a whole channel of the residual branch.
    """

    def __init__(
        self, inp: int, out: int, stride: int, *, cot: bool, se: bool, dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = conv_bn(inp, out, 3, stride)
        self.conv2 = conv_bn(out, out, 3)
        self.cot = CoT3D(out) if cot else nn.Identity()
        self.se = SE3D(out) if se else nn.Identity()
        self.dropout = nn.Dropout3d(dropout)
        same = stride == 1 and inp == out
        self.shortcut = nn.Identity() if same else conv_bn(inp, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ceil(X / stride), ...) from (B, inp, X, Y, Z)."""
        y = self.conv2(F.relu(self.conv1(x)))
        y = self.dropout(self.se(self.cot(y)))
        return F.relu(y + self.shortcut(x))


class CoTResNet3D(nn.Module):
    """Stem, pooling and three residual stages.

    Parameters
    ----------
    blocks_per_stage : int
        Basic blocks in each stage (the paper searched 1 to 3, and uses 2).
    se_stages : iterable of int
        Stages with squeeze-and-excitation.  The paper's "in each residual block" would be
        (1, 2, 3); its stage text says none in stage 1.
    dropout : float
        Channel dropout in stages 2 and 3.
    cot : bool
        False leaves the contextual transformers of stages 2 and 3 out, to see what they bring.
    channels : sequence of int
        Of the three stages; the stem has those of the first.
    """

    def __init__(
        self,
        blocks_per_stage: int = 2,
        se_stages: Iterable[int] = (2, 3),
        dropout: float = 0.1,
        cot: bool = True,
        channels: Sequence[int] = STAGE_CHANNELS,
    ) -> None:
        super().__init__()
        self.stem = conv_bn(1, channels[0], 7, stride=2)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        with_se = set(se_stages)
        inp = channels[0]
        for number, out in enumerate(channels, start=1):
            deep = number > 1
            blocks = [
                BasicBlock(
                    inp if block == 0 else out,
                    out,
                    stride=2 if deep and block == 0 else 1,
                    cot=deep and cot,
                    se=number in with_se,
                    dropout=dropout if deep else 0.0,
                )
                for block in range(blocks_per_stage)
            ]
            self.add_module(f'stage{number}', nn.Sequential(*blocks))
            inp = out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extract the maps on which the two streams of the head stand.

        Parameters
        ----------
        x : Tensor, shape (B, 1, X, Y, Z)
            Modulated grey matter, 2 mm.

        Returns
        -------
        stage2, stage3 : Tensor
            The channels of these stages (128 and 256) on grids of ceil(n/8) and ceil(n/16) voxels.
        """
        x = self.pool(F.relu(self.stem(x)))
        stage2 = self.get_submodule('stage2')(self.get_submodule('stage1')(x))
        return stage2, self.get_submodule('stage3')(stage2)


def initialise(model: nn.Module) -> None:
    """Kaiming-normal convolutions (fan-out), truncated-normal Linear (std 0.02), zero biases.

    BatchNorm and LayerNorm keep weight 1 and bias 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
