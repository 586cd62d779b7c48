"""Train the segmentation network that ships with the package.

    python tools/train_segmentation.py prepare SHARED_DATA WORK
    python tools/train_segmentation.py train WORK A --steps 2100 --cooldown 650
    python tools/train_segmentation.py train WORK A --steps 4200 --cooldown 1150 --rate 4e-3
    python tools/train_segmentation.py train WORK A --steps 5700 --cooldown 1500 --rate 3e-3
    (the same for B)
    python tools/train_segmentation.py export WORK OUT_DIR

``prepare`` reads the heads with DLMUSE labels (``ixi-hh`` and ``more-adults``; 2 mm) and divides
the people of IXI's Hammersmith Hospital into two halves of like ages.  Member A learns from the
first half, member B from the second and the older adults of NiChart.  So each person of the two
sources has a member that has not seen them, and A has seen nobody of NiChart.

Each step shows one head, warped at random, with another contrast, bias field, sharpness, noise,
field of view or stripped of its skull; one head in eight is made from its labels.  One thread,
bfloat16; every hundredth step is written, and a training that was stopped goes on as if it had
not been: each step draws from its own random stream.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from bids_brainage.segmentation.measure import BOX
from bids_brainage.segmentation.network import StructureUNet
from bids_brainage.segmentation.regions import load_regions

LOG = logging.getLogger('train_segmentation')
CLASSES = len(load_regions()) + 1
SIZE = {'classes': CLASSES, 'widths': [16, 32, 64, 128, 192], 'last': 32}
SOURCES = ('ixi-hh', 'more-adults')
MARGIN = 14
"""Voxels kept around the labels: a warped box reaches no further."""

RATE, DECAY, WARM_UP, CLIP = 6e-3, 1e-4, 80, 5.0
EASY = 700
"""Steps until only a fifth of the heads is left in its own contrast; before, up to four fifths."""

BALANCED = 1200
"""Steps until cross-entropy counts every voxel the same; before, voxels of small regions count
more (inverse root of their share at first).  With neither of the two, nor a rate this high and
weights scaled for leaky rectifiers, no small region was found within 500 steps; with them, all."""

VOLUME_WEIGHT, VOLUME_FROM, VOLUME_RISE = 0.2, 800, 400
"""Of the error in log volume beside cross-entropy and soft Dice, and the steps when it comes in;
without it summed probabilities of small regions come out too large, and from the first step on it
is met by probabilities that are spread over the whole brain."""

LATE, CLEAN = 4200, (0.2, 0.4)
"""Step from which heads are warped by cubic interpolation and their regions grow and shrink, and
two fifths instead of one keep their own contrast.  Linear interpolation blurs, and networks that
only know blurred heads and the sizes of their people draw volumes to the middle."""

GROWTH, GROWTH_SD, GROWTH_WIDTH = 0.7, 3.5, 1.6
"""Share of the late heads whose regions grow or shrink into their neighbours, at random; how
strongly (a border moves about a sixth of it, voxels); and the width of the border that gives."""

AVERAGE = 0.997
"""Decay of the running mean of the weights, which is what is used."""

SAVE_EVERY = 100
SEEDS = {'A': (1, 11), 'B': (2, 22)}
TISSUES = {'CSF': 1, 'GM': 2, 'WM': 3}
Head = tuple[torch.Tensor, torch.Tensor]


def prepare(shared: Path, work: Path) -> None:
    """Write the labelled heads as arrays, and who trains which member."""
    regions = np.zeros(256, np.uint8)
    for region in load_regions():
        regions[list(region.muse)] = region.index
    folder = work / 'heads'
    folder.mkdir(parents=True, exist_ok=True)
    people = []
    for source in SOURCES:
        for path in sorted(
            (shared / source / 'derivatives' / 'dlmuse').glob('sub-*/anat/*dseg.nii.gz')
        ):
            name = path.name.split('_')[0]
            found = [*shared.glob(f'*/{name}/anat/{name}_T1w.nii.gz')]
            image = nib.as_closest_canonical(nib.load(found[0]))
            labels = nib.as_closest_canonical(nib.load(path))
            if image.shape != labels.shape:
                raise SystemExit(f'{path}: shape {labels.shape}, but its T1w has {image.shape}')
            codes = np.asarray(labels.dataobj).astype(int)
            intensities = np.asarray(image.dataobj, np.float32)
            np.savez_compressed(folder / f'{name}.npz', x=intensities, y=regions[codes])
            people.append(name)
            LOG.info('%s', name)
    with (shared / 'ixi-hh' / 'participants.tsv').open(encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    known = sorted((float(r['age']), r['participant_id']) for r in rows)
    first = [name for i, (_, name) in enumerate(known) if i % 4 in (0, 3)]
    second = [name for i, (_, name) in enumerate(known) if i % 4 in (1, 2)]
    others = sorted(set(people) - set(first) - set(second))
    (work / 'halves.json').write_text(json.dumps({'A': first, 'B': second + others}), 'utf-8')


def load_heads(work: Path, people: Sequence[str]) -> list[Head]:
    """Return intensities (0 to 1.3, float32) and labels (uint8) of people, cut to the brain."""
    heads = []
    for name in people:
        stored = np.load(work / 'heads' / f'{name}.npz')
        data, labels = stored['x'].astype(np.float32), stored['y']
        low, high = np.percentile(data, [0.5, 99.8])
        data = np.clip((data - low) / (high - low), 0, 1.3).astype(np.float32)
        index = np.argwhere(labels > 0)
        box = tuple(
            slice(max(a - MARGIN, 0), b + MARGIN + 1)
            for a, b in zip(index.min(0), index.max(0), strict=True)
        )
        heads.append((torch.from_numpy(data[box].copy()), torch.from_numpy(labels[box].copy())))
    return heads


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _field(rng: np.random.Generator, shape: tuple[int, ...], channels: int = 1) -> torch.Tensor:
    coarse = rng.standard_normal((1, channels, *shape)).astype(np.float32)
    return functional.interpolate(
        torch.from_numpy(coarse), size=BOX, mode='trilinear', align_corners=True
    )[0]


def _grown(rng: np.random.Generator, labels: torch.Tensor, index: np.ndarray) -> np.ndarray:
    """Return how far each point looks into regions that grow, voxels, shape (3, X, Y, Z)."""
    tissue = np.array([0, *(TISSUES[region.tissue] for region in load_regions())])
    pull = np.clip(rng.standard_normal(CLASSES), -2, 2) + rng.standard_normal(4)[tissue]
    pull[0] = 0
    potential = ndimage.gaussian_filter(pull.astype('f4')[labels], GROWTH_WIDTH, truncate=3)
    slopes = np.gradient(GROWTH_SD * float(rng.random()) * potential)
    return np.stack([
        ndimage.map_coordinates(slope, index, order=1, mode='constant') for slope in slopes
    ])  # fmt: skip


def _blurred(image: torch.Tensor, sigma: Any) -> torch.Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), sigma, truncate=3))


def _quantile(image: torch.Tensor, level: float) -> float:
    return float(torch.quantile(image[::2, ::2, ::2].reshape(-1), level))


class Augmenter:
    """Make the example of a step.

    Parameters
    ----------
    heads : sequence of Head
    seed : int
        Of the member; an example depends on it and on the step alone.
    """

    def __init__(self, heads: Sequence[Head], seed: int) -> None:
        self.heads, self.seed = heads, seed
        tissue = [0, *(TISSUES[region.tissue] for region in load_regions())]
        self.tissue = torch.tensor(tissue)
        axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in BOX]
        self.points = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1)

    def __call__(self, step: int) -> Head:
        """Return intensities (1, 1, X, Y, Z) and labels (1, X, Y, Z)."""
        rng = np.random.default_rng([self.seed, step])
        late = step >= LATE
        image, labels = self.warped(rng, late)
        clean = rng.random() < CLEAN[late] + 0.6 * max(0, 1 - step / EASY)
        image = self.recoloured(rng, image, labels, 0.9 if clean else rng.random())
        image, labels = stripped(rng, image.clamp(0), labels)
        image, labels = cut(rng, image, labels)
        image = shaded(rng, image, clean)
        low, high = (_quantile(image, level) for level in (0.005, 0.995))
        return ((image - low) / (high - low + 1e-6) - 0.5)[None, None], labels[None]

    def warped(self, rng: np.random.Generator, late: bool) -> Head:
        """Return one head, rotated, scaled, mirrored or not, and smoothly deformed."""
        image, labels = self.heads[rng.integers(len(self.heads))]
        turn = _rotation(np.deg2rad(np.clip(rng.normal(0, 9, 3), -28, 28)))
        matrix = turn @ np.diag(np.exp(rng.normal(0, 0.05, 3) + rng.normal(0, 0.06)))
        if rng.random() < 0.5:
            matrix = matrix @ np.diag([-1, 1, 1])
        points = self.points @ torch.from_numpy(np.linalg.inv(matrix).astype(np.float32)).T
        amplitude = rng.uniform(0, 2.2) if rng.random() < 0.7 else 0
        if amplitude:
            points = points + amplitude * _field(rng, (6, 7, 6), 3).permute(1, 2, 3, 0)
        points = points + torch.from_numpy(rng.uniform(-4, 4, 3).astype(np.float32))
        size = torch.tensor(image.shape, dtype=torch.float32)
        if late:
            index = (points + (size - 1) / 2).permute(3, 0, 1, 2).numpy()
            if rng.random() < GROWTH:
                index = index + _grown(rng, labels, index)
            cubic = ndimage.map_coordinates(image.numpy(), index, order=3, mode='constant')
            nearest = ndimage.map_coordinates(labels.numpy(), index, order=0, mode='constant')
            return torch.from_numpy(cubic.astype(np.float32)), torch.from_numpy(nearest).long()
        where = (points * 2 / (size - 1)).flip(-1)[None]
        options: dict[str, Any] = {'padding_mode': 'zeros', 'align_corners': True}
        moved = functional.grid_sample(image[None, None], where, mode='bilinear', **options)
        named = functional.grid_sample(
            labels[None, None].float(), where, mode='nearest', **options
        )
        return moved[0, 0], named[0, 0].long()

    def recoloured(
        self, rng: np.random.Generator, image: torch.Tensor, labels: torch.Tensor, kind: float
    ) -> torch.Tensor:
        """Return an image with other contrasts: shifted, or made from the labels, or the same."""
        if kind < 0.3:
            levels = torch.from_numpy(rng.normal(0, 0.055, 4).astype(np.float32))[self.tissue]
            levels = levels + torch.from_numpy(rng.normal(0, 0.025, CLASSES).astype(np.float32))
            levels[0] = 0
            return image + _blurred(levels[labels], 0.6) * float(image[labels > 0].mean() / 0.5)
        if kind >= 0.43:
            return image
        levels = torch.from_numpy(rng.uniform(0, 1, 4).astype(np.float32))[self.tissue]
        levels = levels + torch.from_numpy(rng.normal(0, 0.08, CLASSES).astype(np.float32))
        width = float(rng.uniform(0.02, 0.12))
        made = levels[labels] + width * _noise(rng)
        around = image * float(rng.uniform(0.3, 1.2))
        if rng.random() < 0.3:
            around = float(rng.uniform(0.5, 1)) * (image > 0.08) - around * 0.5
        made = _blurred(torch.where(labels > 0, made, around.clamp(0)), rng.uniform(0.3, 0.8))
        weight = rng.uniform(0.0, 0.6)
        return made * (1 - weight) + image * weight


def _noise(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(BOX).astype(np.float32))


def stripped(rng: np.random.Generator, image: torch.Tensor, labels: torch.Tensor) -> Head:
    """Return half of the heads without skull, half of these without the outer fluid, too."""
    kind = rng.random()
    if kind >= 0.5:
        return image, labels
    mask = (labels > 0).numpy() if kind < 0.25 else (labels > 1).numpy()
    if kind >= 0.25:
        inner = (slice(3, -3),) * 3
        closed = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[inner]
        mask = ndimage.binary_fill_holes(closed)
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.5, 1.3))
    kept = torch.from_numpy(smooth) > float(rng.uniform(0.2, 0.6))
    return image * kept, torch.where(kept, labels, torch.zeros_like(labels))


def cut(rng: np.random.Generator, image: torch.Tensor, labels: torch.Tensor) -> Head:
    """Return one head in eight with a part outside the field of view."""
    if rng.random() < 0.12:
        axis, depth = rng.integers(3), int(rng.integers(1, 10)) + 8
        where = [slice(None)] * 3
        begin = axis == 2 or rng.random() < 0.5
        where[axis] = slice(0, depth) if begin else slice(BOX[axis] - depth, None)
        image[tuple(where)] = 0
        labels[tuple(where)] = 0
    return image, labels


def shaded(rng: np.random.Generator, image: torch.Tensor, clean: bool) -> torch.Tensor:
    """Return an image with another gamma, a bias field, other sharpness, thick slices, noise."""
    image = (image / (_quantile(image, 0.995) + 1e-6)).clamp(0, 1.6)
    image = image ** float(np.exp(rng.normal(0, 0.05 if clean else 0.2)))
    if not clean and rng.random() < 0.8:
        depth = float(rng.uniform(0, 0.3))
        image = image * torch.exp(depth * _field(rng, (int(rng.integers(2, 5)),) * 3)[0])
    kind = 1 if clean else rng.random()
    if kind < 0.4:
        image = _blurred(image, rng.uniform(0, 0.75, 3))
    elif kind < 0.6:
        image = (image + float(rng.uniform(0, 0.8)) * (image - _blurred(image, 0.8))).clamp(0)
    elif kind < 0.72:
        axis = int(rng.integers(3))
        size = list(BOX)
        size[axis] = int(BOX[axis] / rng.uniform(1.5, 3.2))
        thick = functional.interpolate(image[None, None], size=size, mode='area')
        image = functional.interpolate(thick, size=BOX, mode='trilinear')[0, 0]
    if not clean and rng.random() < 0.7:
        width = float(rng.uniform(0, 0.05))
        noise = width * _noise(rng)
        image = image + (noise * (image > 0) if rng.random() < 0.5 else noise)
    return image


def losses(
    scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, balance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return cross-entropy, mean soft Dice error and mean error of log volumes.

    Parameters
    ----------
    scores : Tensor, shape (N, classes)
    labels : Tensor of int64, shape (N,)
    weight : Tensor, shape (N,)
        How many voxels each one stands for.
    balance : Tensor, shape (classes,)
        What a voxel of each class counts in the cross-entropy.
    """
    logs = functional.log_softmax(scores.float(), 1)
    counted = weight * balance[labels]
    errors = functional.nll_loss(logs, labels, reduction='none')
    entropy = (errors * counted).sum() / counted.sum()
    shares = logs.exp()
    size = torch.zeros(CLASSES).index_add_(0, labels, weight)
    right = shares.gather(1, labels[:, None])[:, 0] * weight
    hit = torch.zeros(CLASSES).index_add_(0, labels, right)
    total = weight @ shares
    there = size > 20
    dice = 1 - (2 * hit + 1) / (size + total + 1)
    volume = ((total + 20).log() - (size + 20).log()).abs()
    return entropy, dice[there].mean(), volume[1:].mean()


def class_shares(heads: Sequence[Head]) -> torch.Tensor:
    """Return the share of each class in the voxels of all heads, background as much as brain."""
    labels = torch.cat([labels.reshape(-1).long() for _, labels in heads])
    count = torch.bincount(labels, minlength=CLASSES).float()
    count[0] = count[1:].sum()
    return count / count.sum()


def scores_near_brain(
    model: StructureUNet, image: torch.Tensor, labels: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores, labels and weights at the brain and at a fifth of what is far from it."""
    near = functional.max_pool3d((labels > 0).float(), 5, 1, 2)[0] > 0
    picked = torch.from_numpy(np.random.default_rng([3, step]).random(BOX)) < 0.2
    index = (near | picked).reshape(-1).nonzero()[:, 0]
    with torch.autocast('cpu', torch.bfloat16):
        found = model.features(image.contiguous(memory_format=torch.channels_last_3d))
        found = found.permute(0, 2, 3, 4, 1).reshape(-1, found.shape[1])[index]
        scores = functional.linear(found, model.head.weight[:, :, 0, 0, 0], model.head.bias)
    return scores, labels.reshape(-1)[index], torch.where(near, 1.0, 5.0).reshape(-1)[index]


def train(work: Path, member: str, steps: int, cooldown: int, rate: float) -> None:
    """Train one member up to a number of steps; goes on where it was stopped."""
    torch.set_num_threads(1)
    people = json.loads((work / 'halves.json').read_text('utf-8'))[member]
    weights_seed, data_seed = SEEDS[member]
    examples = Augmenter(load_heads(work, people), data_seed)
    torch.manual_seed(weights_seed)
    model = StructureUNet(**SIZE).to(memory_format=torch.channels_last_3d)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, a=0.01)
    shares = class_shares(examples.heads)
    mean = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=DECAY)
    path, step = work / f'member_{member}.pt', 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state['model'])
        mean.load_state_dict(state['mean'])
        optimiser.load_state_dict(state['optimiser'])
        step = state['step']
    while step < steps:
        scale = min(1, (step + 1) / WARM_UP) * max(0, min(1, (steps - step) / cooldown))
        for group in optimiser.param_groups:
            group['lr'] = rate * scale + 1e-6
        balance = shares ** (-0.5 * max(0, 1 - step / BALANCED))
        balance = balance / (balance * shares).sum()
        found = scores_near_brain(model, *examples(step), step)
        entropy, dice, volume = losses(*found, balance)
        rise = min(1, max(0, (step - VOLUME_FROM) / VOLUME_RISE))
        optimiser.zero_grad()
        (entropy + dice + VOLUME_WEIGHT * rise * volume).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        step += 1
        keep = min(AVERAGE, step / (step + 30))
        with torch.no_grad():
            for slow, fast in zip(mean.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % SAVE_EVERY == 0 or step == steps:
            LOG.info('%s %d: %.3f %.3f %.3f', member, step, entropy, dice, volume)
            content = {'model': model.state_dict(), 'mean': mean.state_dict(), 'step': step}
            torch.save({**content, 'optimiser': optimiser.state_dict()}, path.with_suffix('.part'))
            path.with_suffix('.part').rename(path)


def export(work: Path, out: Path) -> None:
    """Write the members in half precision and put their hash into the card that is there."""
    from safetensors.torch import save_file

    tensors = {
        f'{number}.{name}': value.contiguous().half()
        for number, member in enumerate(sorted(SEEDS))
        for name, value in torch.load(work / f'member_{member}.pt', weights_only=True)[
            'mean'
        ].items()
    }
    weights = out / 'model.safetensors'
    save_file(tensors, weights)
    weights.chmod(0o644)
    card = json.loads((out / 'metadata.json').read_text('utf-8'))
    card |= {
        'arch_options': SIZE,
        'weights_sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (out / 'metadata.json').write_text(json.dumps(card, indent=1) + '\n', 'utf-8')


def main() -> None:
    """Run one of the commands."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    commands = parser.add_subparsers(dest='command', required=True)
    for name, others in (('prepare', ('shared', 'work')), ('export', ('work', 'out'))):
        command = commands.add_parser(name)
        for other in others:
            command.add_argument(other, type=Path)
    command = commands.add_parser('train')
    command.add_argument('work', type=Path)
    command.add_argument('member', choices=sorted(SEEDS))
    command.add_argument('--steps', type=int, required=True)
    command.add_argument('--cooldown', type=int, required=True, help='last steps, rate to zero')
    command.add_argument('--rate', type=float, default=RATE, help='learning rate before these')
    options = parser.parse_args()
    if options.command == 'prepare':
        prepare(options.shared, options.work)
    elif options.command == 'train':
        train(options.work, options.member, options.steps, options.cooldown, options.rate)
    else:
        export(options.work, options.out)


if __name__ == '__main__':
    main()
