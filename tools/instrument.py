"""Test the segmentation network like an instrument.

    python tools/instrument.py SHARED_DATA_DIR OUT_DIR [--list TSV] [--people N] [--bundle PATH]
        [--mirror] [--tests changes guises agreement]

Three tests, each with its tables (TSV) in ``OUT_DIR``; ``summary.md`` says what they show.

changes
    Real heads in which one structure was changed by a known factor, its neighbours giving way;
    with ``bidsgate`` (PyPI, MIT) on the path also by its radial atrophy, which moves the
    neighbours along.  Recovery is the log of the measured change over the log of the true one.
guises
    One head again and again: at 1 and 2 mm, whole and skull-stripped, stored in other
    orientations, moved, with a bias field, noise and thick slices.
agreement
    Volumes, shares of the brain and overlap (Dice) against DLMUSE's labels.

``--list`` is a table with the columns ``participant`` and ``network``: the member of the ensemble
(0, 1, ...) that has not seen this person, or ``all``.  People who are not in it are measured by
the whole ensemble.  Without a list everybody with labels takes part, measured by the ensemble:
then nothing is said of people left out.  With ``--bundle`` (a model of region volumes) the
predicted age is told of everything that is measured, too.

Where a label image exists, its brain serves as the mask, which only says where to look; the heads
of the guises get deepbet's, changed along with the head.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.preprocessing.image import load_canonical
from bids_brainage.preprocessing.resample import onto_grid
from bids_brainage.preprocessing.transforms import grid_points, sample_image
from bids_brainage.segmentation.regions import OUTER_FLUID, load_regions
from bids_brainage.simulation.grid import Grid
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.warp import border_window, curl_free_velocity

LOGGER = logging.getLogger('instrument')
Volumes = dict[str, float]
Measuring = Callable[[np.ndarray, np.ndarray, np.ndarray, str], Any]
"""Image, affine, mask, member of the ensemble → ``volumes_ml``, ``labels``, ``affine``."""
Ager = Callable[[Mapping[str, float]], float]

IMAGE_FOLDERS = ('ixi-hh', 'more-adults', 'real-bids')
LABEL_FOLDERS = ('ixi-hh', 'more-adults')
SOURCES = {'sub-ixihh': 'ixi-hh', 'sub-nichart': 'nichart'}
CHANGED_HEADS = {'ixi-hh': 6, 'nichart': 2}
GUISE_HEADS = ('sub-ixi017', 'sub-ixi071', 'sub-ixi099')

OWN_WARP = 'neighbours give way'
LIMITS = (0.7, 1.3)
"""Recovery that is good enough, median over people."""

FACTOR_LIMIT, FACTOR_TOLERANCE, MAX_ROUNDS = 0.02, 0.005, 12
"""Largest error of a change that was put in, the error at which the search ends, its length."""

REACH_MM, MARGIN_MM = 8.0, 24.0
"""How far the neighbours that give way reach; room around the labels in which anything moves."""

LOW_PASSES_MM = (1.0, 1.5, 2.5)
"""SD of the low-pass of the velocity: the next one is taken if the one before folds space."""


def _cortex() -> tuple[str, ...]:
    names = [region.name for region in load_regions()]
    return tuple(n for n in names if n.endswith('_cortex') and n != 'cerebellum_cortex')


GROUPS: dict[str, tuple[str, ...]] = {
    'lateral_ventricles_with_horns': ('lateral_ventricle', 'temporal_horn'),
    'cortex': _cortex(),
    'cerebral_white_matter': (
        *(f'{lobe}_white_matter' for lobe in ('frontal', 'parietal', 'temporal', 'occipital')),
        'deep_white_matter',
        'corpus_callosum',
    ),
    'cerebellum': ('cerebellum_cortex', 'vermis', 'cerebellum_white_matter'),
    'brain': tuple(r.name for r in load_regions() if r.name != OUTER_FLUID),
}
"""Sums of regions that are reported beside the single ones."""

MAIN = ('brain', 'cortex', 'cerebral_white_matter', 'hippocampus', 'lateral_ventricles_with_horns',
        'cerebellum')  # fmt: skip
"""What the summary shows."""


@dataclass(frozen=True)
class Change:
    """A change that is put into a head.

    Attributes
    ----------
    name : str
    target : str
        Region or group.
    factor : float
        Its volume afterwards over its volume before.
    ageing : int
        Whether it should make a person look older (1) or younger (-1).
    parts : tuple of tuple of str
        The target in parts that are to change alike.
    kept : tuple of str
        Neighbours that are to keep their volume.
    radial : bool
        Whether `bidsgate` is asked for it as well.
    paired : bool
        Two bodies far apart, each with its own centre.
    """

    name: str
    target: str
    factor: float
    ageing: int
    parts: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...] = ()
    radial: bool = True
    paired: bool = False


VENTRICLES = (('lateral_ventricle',), ('temporal_horn',))
CHANGES = (
    Change('ventricles x1.3', 'lateral_ventricles_with_horns', 1.3, 1, VENTRICLES),
    Change(
        'ventricles x0.75', 'lateral_ventricles_with_horns', 0.75, -1, VENTRICLES, radial=False
    ),
    Change(
        'hippocampus x0.75',
        'hippocampus',
        0.75,
        1,
        (('hippocampus',),),
        kept=('temporal_horn', 'amygdala'),
        paired=True,
    ),
    Change(
        'brain x0.95',
        'brain',
        0.95,
        1,
        (GROUPS['cortex'], tuple(n for n in GROUPS['brain'] if n not in GROUPS['cortex'])),
    ),
)


@dataclass(frozen=True)
class Head:
    """A head with DLMUSE's labels.

    Attributes
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        T1w, RAS+ order.
    regions : ndarray of uint8, shape (X, Y, Z)
        Labels of `load_regions`, made of DLMUSE's.
    inside : ndarray of bool, shape (X, Y, Z)
        Everything that DLMUSE labels.
    affine : ndarray, shape (4, 4)
    """

    data: np.ndarray
    regions: np.ndarray
    inside: np.ndarray
    affine: np.ndarray


# --- statistics ------------------------------------------------------------------------------


def with_groups(volumes: Mapping[str, float]) -> Volumes:
    """Return the volumes of the regions followed by those of the `GROUPS`."""
    sums = {name: sum(volumes[part] for part in parts) for name, parts in GROUPS.items()}
    return {**volumes, **sums}


def recovery(before: float, after: float, true_before: float, true_after: float) -> float:
    """Return the log of the measured change over the log of the true one: 1 is perfect."""
    return float(np.log(after / before) / np.log(true_after / true_before))


def agreement(measured: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare two measures of the same people.

    Parameters
    ----------
    measured, truth : ndarray, shape (N,)

    Returns
    -------
    dict
        ``n``; ``r`` Pearson's; ``slope`` of measured on truth; ``ratio`` median of
        measured / truth.
    """
    keep = np.isfinite(measured) & np.isfinite(truth) & (truth > 0)
    y, x = measured[keep], truth[keep]
    known = len(x) > 2 and x.std() > 0 and y.std() > 0
    return {
        'n': len(x),
        'r': float(np.corrcoef(x, y)[0, 1]) if known else np.nan,
        'slope': float(np.polyfit(x, y, 1)[0]) if known else np.nan,
        'ratio': float(np.median(y / x)) if len(x) else np.nan,
    }


def dice(ours: np.ndarray, theirs: np.ndarray, classes: int) -> np.ndarray:
    """Return the overlap of labels 1 to classes - 1; nan where neither has a voxel."""
    pairs = np.bincount(
        ours.ravel().astype(np.int64) * classes + theirs.ravel(), minlength=classes**2
    ).reshape(classes, classes)
    total = pairs.sum(0) + pairs.sum(1)
    return (2 * np.diag(pairs) / np.where(total, total, np.nan))[1:]


def variation(values: np.ndarray) -> float:
    """Return the coefficient of variation: SD (n - 1) over the mean."""
    return float(np.std(values, ddof=1) / np.mean(values))


def spread_out(people: pd.DataFrame, number: int | None) -> pd.DataFrame:
    """Choose people evenly along their order by source and age; all if `number` is None."""
    ordered = people.sort_values(['source', 'age', 'participant'])
    if number is None or number >= len(ordered):
        return ordered
    return ordered.iloc[np.linspace(0, len(ordered) - 1, number).round().astype(int)]


def of_all_ages(people: pd.DataFrame, number: int) -> pd.DataFrame:
    """Choose people whose ages come closest to equal steps from the youngest to the oldest."""
    left = people.sort_values(['age', 'participant']).dropna(subset='age')
    chosen = []
    for age in np.linspace(left['age'].min(), left['age'].max(), number):
        if len(left):
            nearest = (left['age'] - age).abs().idxmin()
            chosen.append(nearest)
            left = left.drop(nearest)
    return people.loc[chosen]


# --- known changes ---------------------------------------------------------------------------


def growth(part: np.ndarray, around: np.ndarray, spacing: float) -> np.ndarray:
    """Return where volume is made and where it is taken from.

    Parameters
    ----------
    part, around : ndarray of bool, shape (X, Y, Z)
        What changes, and all that may give way.
    spacing : float
        Voxel size, mm.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Rate of growth: 1 in the part, below 0 in what surrounds it, 0 in sum.
    """
    away = ndimage.distance_transform_edt(~part, sampling=spacing)
    giving = np.exp(-((away / REACH_MM) ** 2)) * around
    return (part - giving * (part.sum() / giving.sum())).astype(np.float32)


def volume_warp(
    parts: Sequence[tuple[np.ndarray, float]],
    inside: np.ndarray,
    spacing: float,
    low_pass: float = LOW_PASSES_MM[0],
) -> tuple[np.ndarray, float]:
    """Find the flow that changes the volume of a target, its neighbours giving way.

    It is the flow of a sum of velocities, one for each part, whose weights are found by Broyden's
    method.

    Parameters
    ----------
    parts : sequence of (ndarray of bool of shape (X, Y, Z), float)
        Disjoint, with the wanted volume of each over its volume before.  Those with a factor of
        1 are kept as well as can be; the others make up the target.
    inside : ndarray of bool, shape (X, Y, Z)
        All that lies within the skull: what is not in a part may give way.
    spacing, low_pass : float
        Voxel size and SD of the low-pass of the velocity, mm.

    Returns
    -------
    displacement : ndarray of float32, shape (3, X, Y, Z)
        mm: the new head at x is the old one at x + displacement.
    reached : float
        Volume of the warped target over that before.

    Raises
    ------
    ValueError
        If the factor is not reached, or space folds.
    """
    import torch

    masks = [mask for mask, _ in parts]
    wanted = np.log([factor for _, factor in parts])
    shape = masks[0].shape
    grid = Grid((shape[0], shape[1], shape[2]), spacing, (0.0, 0.0, 0.0))
    around = inside & ~np.any(masks, axis=0)
    window = border_window(shape, round(MARGIN_MM / 3 / spacing))
    basis = [
        torch.from_numpy(
            curl_free_velocity(growth(m, around, spacing), spacing, low_pass) * window
        )
        for m in masks
    ]
    points = field.grid_points(grid)
    soft = torch.from_numpy(np.stack(masks).astype(np.float32))
    before = np.array([m.sum() for m in masks], float)
    target = wanted != 0
    goal = (before * np.exp(wanted))[target].sum() / before[target].sum()

    def flow(weights: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        weighted = [float(w) * b for w, b in zip(weights, basis, strict=True)]
        velocity = torch.stack(weighted).sum(0)
        way = field.exponentiate(-velocity, grid, points)
        return way, field.sample(soft, grid, points + way).double().sum((1, 2, 3)).numpy()

    weights, slope = wanted / 0.7, 0.7 * np.eye(len(parts))
    step = old = np.zeros(len(parts))
    found: list[tuple[float, torch.Tensor, float]] = []
    for _ in range(MAX_ROUNDS):
        way, after = flow(weights)
        reached = float(after[target].sum() / before[target].sum())
        error = np.log(after / before) - wanted
        found.append((abs(np.log(reached / goal)) + 0.1 * np.abs(error).max(), way, reached))
        if np.abs(error).max() < FACTOR_TOLERANCE:
            break
        if step.any():
            slope += np.outer(error - old - slope @ step, step) / (step @ step)
        step, old = np.clip(-np.linalg.lstsq(slope, error, rcond=None)[0], -0.5, 0.5), error
        weights = weights + step
    _, way, reached = min(found, key=lambda one: one[0])
    if abs(reached / goal - 1) > FACTOR_LIMIT:
        raise ValueError(f'asked for a factor of {goal:g}, reached {reached:.3f}')
    if float(field.jacobian(way, spacing).min()) <= 0:
        raise ValueError(f'a factor of {goal:g} folds space')
    return way.numpy(), reached


def radial_warp(target: np.ndarray, factor: float, spacing: float, *, paired: bool) -> np.ndarray:
    """Return the displacement in mm of `bidsgate`, as `volume_warp` does."""
    from bidsgate.inject_atrophy import AtrophySpec, displacement

    bodies = [target]
    if paired:
        x = np.arange(target.shape[0])
        left = (x < (target.sum(axis=(1, 2)) * x).sum() / target.sum())[:, None, None]
        bodies = [target & left, target & ~left]
    zooms, falloff = (spacing,) * 3, AtrophySpec().falloff_mm
    return spacing * sum(displacement(target.shape, zooms, b, factor, falloff) for b in bodies)


def warped_volumes(regions: np.ndarray, displacement: np.ndarray, spacing: float) -> Volumes:
    """Return the volumes, ml, of regions with partial volume (trilinear interpolation)."""
    size = np.array(regions.shape)[:, None]
    where = np.indices(regions.shape, dtype=np.float32) + displacement / np.float32(spacing)
    where = where.reshape(3, -1).clip(0, size - 1)
    low = np.minimum(where.astype(np.int64), size - 2)
    part = where - low
    total = np.zeros(len(load_regions()) + 1)
    for corner in np.ndindex(2, 2, 2):
        chosen = np.array(corner)[:, None]
        weights = np.where(chosen, part, 1 - part).prod(axis=0)
        total += np.bincount(regions[tuple(low + chosen)], weights, minlength=len(total))
    return {r.name: float(total[r.index] * spacing**3 / 1000) for r in load_regions()}


def warped_image(data: np.ndarray, displacement: np.ndarray, spacing: float) -> np.ndarray:
    """Return an image moved by a displacement in mm: cubic splines, within its own range."""
    moving = (np.abs(displacement) > 1e-3 * spacing).any(axis=0)
    where = np.argwhere(moving).T + displacement[:, moving] / spacing
    out = data.astype(np.float32)
    out[moving] = ndimage.map_coordinates(data, where, order=3, mode='nearest')
    return out.clip(data.min(), data.max())


def room(inside: np.ndarray, spacing: float) -> tuple[slice, ...]:
    """Return the box in which anything moves: the labels and a margin."""
    margin = round(MARGIN_MM / spacing)
    return tuple(
        slice(max(box.start - margin, 0), box.stop + margin)
        for box in ndimage.find_objects(inside.astype(np.uint8))[0]
    )


def changed_heads(head: Head) -> Iterator[tuple[Change, str, np.ndarray, Volumes]]:
    """Yield change, the warp's name, the changed image and the true volumes of its regions."""
    spacing = float(np.linalg.norm(head.affine[:3, 0]))
    box = room(head.inside, spacing)
    regions, inside = head.regions[box], head.inside[box]
    index = {region.name: region.index for region in load_regions()}
    for change in CHANGES:
        masks = [
            (np.isin(regions, [index[name] for name in names]), factor)
            for names, factor in (
                *((part, change.factor) for part in change.parts),
                *(((name,), 1.0) for name in change.kept),
            )
        ]
        masks = [(mask, factor) for mask, factor in masks if mask.any()]
        warps = {}
        for low_pass in LOW_PASSES_MM:
            try:
                warps[OWN_WARP] = volume_warp(masks, inside, spacing, low_pass)[0]
                break
            except ValueError as error:
                LOGGER.warning('%s, low-pass of %g mm: %s', change.name, low_pass, error)
        if change.radial and radial_is_there():
            target = np.any([mask for mask, factor in masks if factor != 1], axis=0)
            warps['bidsgate'] = radial_warp(target, change.factor, spacing, paired=change.paired)
        for name, displacement in warps.items():
            data = head.data.copy()
            data[box] = warped_image(data[box], displacement, spacing)
            yield change, name, data, warped_volumes(regions, displacement, spacing)


def radial_is_there() -> bool:
    """Tell whether `bidsgate` can be imported."""
    try:
        import bidsgate.inject_atrophy  # noqa: F401
    except ImportError:
        return False
    return True


def run_changes(
    people: pd.DataFrame, shared: Path, measuring: Measuring, ager: Ager | None
) -> dict[str, pd.DataFrame]:
    """Measure every chosen head before and after every change.

    Returns
    -------
    dict of DataFrame
        ``changes``: one row for each person and change; ``changes_by_region``: true and measured
        ratios (after / before) of everything.
    """
    rows, ratios = [], []
    for person in people.itertuples():
        LOGGER.info('changes: %s', person.participant)
        head = read_head(shared, person.participant)
        voxel_ml = abs(np.linalg.det(head.affine[:3, :3])) / 1000
        counts = np.bincount(head.regions.ravel(), minlength=len(load_regions()) + 1)
        true = with_groups({r.name: float(counts[r.index] * voxel_ml) for r in load_regions()})
        first = measuring(head.data, head.affine, head.inside, person.network)
        before = with_groups(first.volumes_ml)
        for change, warp, data, volumes in changed_heads(head):
            found = measuring(data, head.affine, head.inside, person.network)
            after, true_after = with_groups(found.volumes_ml), with_groups(volumes)
            name = change.target
            row: dict[str, Any] = {
                'participant': person.participant,
                'age': person.age,
                'network': person.network,
                'change': change.name,
                'warp': warp,
                'target': name,
                'true_before_ml': true[name],
                'true_ratio': true_after[name] / true[name],
                'before_ml': before[name],
                'ratio': after[name] / before[name],
                'recovery': recovery(before[name], after[name], true[name], true_after[name]),
            }
            if ager:
                old, new = ager(first.volumes_ml), ager(found.volumes_ml)
                row |= {
                    'age_before': old,
                    'age_after': new,
                    'age_change': new - old,
                    'as_expected': int((new - old) * change.ageing > 0),
                }
            rows.append(row)
            ratios += [
                {
                    **{key: row[key] for key in ('participant', 'change', 'warp')},
                    'region': region,
                    'true_ratio': true_after[region] / true[region] if true[region] else np.nan,
                    'ratio': after[region] / before[region],
                }
                for region in before
            ]
    return {'changes': pd.DataFrame(rows), 'changes_by_region': pd.DataFrame(ratios)}


# --- guises ----------------------------------------------------------------------------------


def stored(data: np.ndarray, affine: np.ndarray, codes: str) -> np.ndarray:
    """Write an image in another order of its axes and read it as the program does."""
    image = nib.Nifti1Image(data, affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, 'T1w.nii')
        image.as_reoriented(turn).to_filename(path)
        return load_canonical(path)[0]


def moved(
    data: np.ndarray, affine: np.ndarray, axis: Sequence[float], degrees: float, shift: float
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function that turns images about their middle and shifts them along `axis`, mm."""
    from scipy.spatial.transform import Rotation

    direction = np.array(axis, float) / np.linalg.norm(axis)
    turn = Rotation.from_rotvec(np.radians(degrees) * direction).as_matrix()
    axes, origin = affine[:3, :3], affine[:3, 3]
    middle = axes @ ((np.array(data.shape) - 1) / 2) + origin
    to_index = np.linalg.inv(axes)
    matrix = to_index @ turn.T @ axes
    offset = to_index @ (turn.T @ (origin - middle - shift * direction) + middle - origin)

    def move(image: np.ndarray, order: int) -> np.ndarray:
        return ndimage.affine_transform(image, matrix, offset, order=order)

    return move


def guises(
    data: np.ndarray, affine: np.ndarray, mask: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield one head in other guises: name, image, affine, mask.

    Parameters
    ----------
    data : ndarray of float32, shape (X, Y, Z)
        Whole head, 1 mm, RAS+ order.
    affine : ndarray, shape (4, 4)
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.
    """
    rng = np.random.default_rng(20)
    half = affine.copy()
    half[:3, :3] *= 2
    half[:3, 3] += affine[:3, :3] @ np.array([0.5, 0.5, 0.5])
    few = tuple(n // 2 for n in data.shape)
    coarse = onto_grid(data, affine, few, half)
    tight = ndimage.binary_erosion(mask)
    yield 'whole, 1 mm', data, affine, mask
    yield 'whole, 2 mm', coarse, half, _on(mask, affine, few, half)
    yield 'stripped, 1 mm', data * mask, affine, mask
    coarse_mask = _on(mask, affine, few, half)
    yield 'stripped, 2 mm', coarse * coarse_mask, half, coarse_mask
    yield 'stripped tightly, 1 mm', data * tight, affine, tight
    coarse_tight = _on(tight, affine, few, half)
    yield 'stripped tightly, 2 mm', coarse * coarse_tight, half, coarse_tight
    for codes in ('LAS', 'PSR', 'LPI'):
        yield f'stored as {codes}', stored(data, affine, codes), affine, mask
    for name, axis, degrees in (('nodded', (1, 0, 0), 10), ('tilted and turned', (0, 1, 1), -10)):
        move = moved(data, affine, axis, degrees, 7.0)
        yield f'{name} by 10 degrees, 7 mm', move(data, 1), affine, move(mask, 0)
    steps = affine[:3, :3].sum(axis=0) / np.sqrt(3)
    x, y, z = (step * np.arange(n) for step, n in zip(steps, data.shape, strict=True))
    along = x[:, None, None] + y[:, None] + z
    wave = np.sin(2 * np.pi * (along - along[mask].mean()) / 200)
    yield 'bias of 20 %', (data * (1 + 0.2 * wave)).astype(np.float32), affine, mask
    sd = 0.03 * np.percentile(data[mask], 90)
    real, other = (sd * rng.standard_normal(data.shape, np.float32) for _ in range(2))
    yield 'noise of 3 %', np.hypot(data + real, other).astype(np.float32), affine, mask
    n = data.shape[2] // 3
    thick = affine.copy()
    thick[:3, 2] *= 3
    thick[:3, 3] += affine[:3, 2]
    slices = data[:, :, : 3 * n].reshape(*data.shape[:2], n, 3).mean(axis=3)
    yield 'slices of 3 mm', slices, thick, mask[:, :, 1 : 3 * n : 3]


def _on(
    mask: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray
) -> np.ndarray:
    return onto_grid(mask.astype(np.float32), affine, shape, target) > 0.5


def run_guises(
    people: pd.DataFrame, shared: Path, measuring: Measuring, ager: Ager | None
) -> dict[str, pd.DataFrame]:
    """Measure each head in all its guises.

    Returns
    -------
    dict of DataFrame
        ``guises``: one row for each head and guise; ``variation``: one for each head and region,
        and the median over heads.
    """
    from bids_brainage.preprocessing.brainmask import brain_mask_deepbet

    rows = []
    for person in people.itertuples():
        data, affine, _ = load_canonical(image_path(shared, person.participant))
        mask = brain_mask_deepbet(data, affine)
        box = room(mask, float(np.linalg.norm(affine[:3, 0])))
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array([s.start for s in box])
        data, mask = data[box], mask[box]
        known: list[tuple[np.ndarray, Any]] = []
        for name, image, grid, where in guises(data, affine, mask):
            LOGGER.info('guises: %s, %s', person.participant, name)
            same = next((f for d, f in known if name[:6] == 'stored' and _equal(d, image)), None)
            found = same or measuring(image, grid, where, person.network)
            known = known or [(image, found)]
            row = {'participant': person.participant, 'guise': name, 'network': person.network}
            if ager:
                row['age'] = ager(found.volumes_ml)
            rows.append(row | with_groups(found.volumes_ml))
    table = pd.DataFrame(rows)
    return {'guises': table, 'variation': variations(table)}


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other))


def variations(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much each region varies between the guises of a head.

    Parameters
    ----------
    table : DataFrame
        Of `run_guises`.

    Returns
    -------
    DataFrame
        ``participant``, or ``median`` of all, ``region``, ``cv`` of the volume and ``share_cv`` of
        its share of the brain, and the guise farthest from the others with the log ratio of its
        volume to the median.
    """
    rows = []
    for participant, head in table.groupby('participant'):
        for region in with_groups(dict.fromkeys((r.name for r in load_regions()), 0.0)):
            values = head[region].to_numpy(float)
            away = np.log(values / np.median(values))
            worst = int(np.abs(away).argmax())
            rows.append({
                'participant': participant,
                'region': region,
                'cv': variation(values),
                'share_cv': variation(values / head['brain'].to_numpy(float)),
                'farthest_guise': head['guise'].iloc[worst],
                'farthest_log_ratio': away[worst],
            })  # fmt: skip
    out = pd.DataFrame(rows)
    middle = out.groupby('region', sort=False)[['cv', 'share_cv']].median().reset_index()
    return pd.concat([middle.assign(participant='median')[out.columns[:4]], out])


# --- agreement -------------------------------------------------------------------------------


def run_agreement(
    people: pd.DataFrame, shared: Path, measuring: Measuring, ager: Ager | None
) -> dict[str, pd.DataFrame]:
    """Compare with DLMUSE.

    Returns
    -------
    dict of DataFrame
        ``people``: volumes of both and Dice of each person and region; ``agreement``: statistics
        for each source and region; with `ager` also ``ages``.
    """
    index = {region.name: region.index for region in load_regions()}
    rows, ages = [], []
    for person in people.itertuples():
        LOGGER.info('agreement: %s', person.participant)
        head = read_head(shared, person.participant)
        found = measuring(head.data, head.affine, head.inside, person.network)
        theirs = onto_nearest(head.regions, head.affine, found.labels.shape, found.affine)
        overlap = dice(found.labels, theirs, len(index) + 1)
        voxel_ml = abs(np.linalg.det(head.affine[:3, :3])) / 1000
        counts = np.bincount(head.regions.ravel(), minlength=len(index) + 1) * voxel_ml
        truth = with_groups({name: float(counts[i]) for name, i in index.items()})
        rows += [
            {
                'participant': person.participant,
                'source': person.source,
                'network': person.network,
                'region': name,
                'measured_ml': volume,
                'dlmuse_ml': truth[name],
                'dice': overlap[index[name] - 1] if name in index else np.nan,
            }
            for name, volume in with_groups(found.volumes_ml).items()
        ]
        if ager:
            ages.append({
                'participant': person.participant,
                'source': person.source,
                'age': person.age,
                'predicted_age': ager(found.volumes_ml),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    out = {'people': table, 'agreement': agreements(table)}
    return {**out, 'ages': pd.DataFrame(ages)} if ager else out


def agreements(table: pd.DataFrame) -> pd.DataFrame:
    """Return statistics of volumes and of shares of the brain, by source and region.

    Parameters
    ----------
    table : DataFrame
        ``people`` of `run_agreement`.
    """
    rows = []
    sources = [(source, table[table['source'] == source]) for source in table['source'].unique()]
    for source, part in [('all', table), *(sources if len(sources) > 1 else [])]:
        wide = {
            column: part.pivot(index='participant', columns='region', values=column)
            for column in ('measured_ml', 'dlmuse_ml')
        }
        overlap = part.groupby('region')['dice'].mean()
        for region in part['region'].unique():
            ours, theirs = (wide[c][region].to_numpy() for c in ('measured_ml', 'dlmuse_ml'))
            brains = [wide[c]['brain'].to_numpy() for c in ('measured_ml', 'dlmuse_ml')]
            share = agreement(ours / brains[0], theirs / brains[1])
            if region == 'brain':
                share = dict.fromkeys(share, np.nan)
            rows.append({
                'source': source,
                'region': region,
                **agreement(ours, theirs),
                **{f'share_{key}': share[key] for key in ('r', 'slope', 'ratio')},
                'dice': overlap[region],
            })  # fmt: skip
    return pd.DataFrame(rows)


def onto_nearest(
    labels: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray
) -> np.ndarray:
    """Resample labels by nearest neighbour."""
    return sample_image(labels, affine, grid_points(shape, target), order=0).reshape(shape)


# --- input -----------------------------------------------------------------------------------


def image_path(shared: Path, participant: str) -> Path:
    """Return the T1w image of a person."""
    found = [
        path
        for folder in IMAGE_FOLDERS
        for path in sorted(shared.glob(f'{folder}/{participant}/**/*_T1w.nii*'))
    ]
    return _one(found, f'T1w image of {participant}')


def label_path(shared: Path, participant: str) -> Path:
    """Return DLMUSE's labels of a person."""
    found = [
        path
        for folder in LABEL_FOLDERS
        for path in sorted(shared.glob(f'{folder}/derivatives/dlmuse/{participant}/**/*.nii.gz'))
    ]
    return _one(found, f'labels of {participant}')


def _one(paths: list[Path], what: str) -> Path:
    if not paths:
        raise FileNotFoundError(f'no {what} below the shared data')
    return paths[0]


def read_head(shared: Path, participant: str) -> Head:
    """Read the image and the labels of a person."""
    data, affine, _ = load_canonical(image_path(shared, participant))
    image = nib.as_closest_canonical(nib.load(label_path(shared, participant)))
    codes = np.asarray(image.dataobj).astype(np.int64)
    if codes.shape != data.shape or not np.allclose(image.affine, affine, atol=1e-2):
        raise ValueError(f'{participant}: the labels are not on the grid of the image')
    lookup = np.zeros(max(256, codes.max() + 1), np.uint8)
    for region in load_regions():
        lookup[list(region.muse)] = region.index
    return Head(data, lookup[codes], codes > 0, affine)


def read_people(shared: Path, listed: Path | None) -> pd.DataFrame:
    """Return everybody with labels, or those of the list.

    Returns
    -------
    DataFrame
        ``participant``, ``source``, ``age``, ``network``; its index is the participant.
    """
    tables = [
        pd.read_csv(shared / folder / 'participants.tsv', sep='\t', na_values='n/a')
        for folder in IMAGE_FOLDERS
    ]
    ages = pd.concat(tables).drop_duplicates('participant_id').set_index('participant_id')['age']
    if listed:
        people = pd.read_csv(listed, sep='\t', dtype=str)[['participant', 'network']]
    else:
        folders = [shared / folder / 'derivatives' / 'dlmuse' for folder in LABEL_FOLDERS]
        names = sorted({path.name for folder in folders for path in folder.glob('sub-*')})
        people = pd.DataFrame({'participant': names, 'network': 'all'})
    people['age'] = people['participant'].map(pd.to_numeric(ages, errors='coerce'))
    people['source'] = [
        next((s for start, s in SOURCES.items() if name.startswith(start)), 'other')
        for name in people['participant']
    ]
    return people.set_index('participant', drop=False).rename_axis(None)


def packaged_measuring(*, mirror: bool = True) -> Measuring:
    """Return the measuring function of the package with the weights that it ships."""
    from bids_brainage.segmentation.measure import measure
    from bids_brainage.segmentation.weights import load_networks

    networks = load_networks(threads=1)

    def measuring(data: np.ndarray, affine: np.ndarray, mask: np.ndarray, network: str) -> Any:
        chosen = networks if network == 'all' else [networks[int(network)]]
        return measure(data, affine, mask, chosen, mirror=mirror)

    return measuring


def bundle_ager(folder: Path) -> Ager:
    """Return the function that predicts the age from volumes with a bundle of region volumes."""
    from bids_brainage.bundles.bundle import load_bundle

    bundle = load_bundle(folder)
    model = bundle.instantiate('cpu')
    features = bundle.metadata['input']['features']

    def ager(volumes: Mapping[str, float]) -> float:
        return float(np.ravel(model(log_ratios(volumes, features)[None]))[0])

    return ager


# --- output ----------------------------------------------------------------------------------


def summarise(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> str:
    """Return the summary in Markdown."""
    lines = ['# The segmentation as an instrument', '']
    lines += [f'* {key}: {value}' for key, value in facts.items()]
    if 'changes' in tables:
        lines += ['', '## Known changes', '', *_changes_summary(tables['changes'])]
    if 'guises' in tables:
        lines += ['', '## The same head in other guises', '', *_guises_summary(tables)]
    if 'agreement' in tables:
        lines += ['', '## Agreement with DLMUSE', '']
        shown = tables['agreement'][tables['agreement']['region'].isin(MAIN)]
        lines += _markdown(shown.drop(columns='dice'))
        single = tables['agreement'].dropna(subset='dice')
        rows = [
            {
                'source': source,
                'mean Dice': part['dice'].mean(),
                'lowest': part['dice'].min(),
                'where': part.loc[part['dice'].idxmin(), 'region'],
                'median r of volumes': part['r'].median(),
                'median r of shares': part['share_r'].median(),
                'median slope of shares': part['share_slope'].median(),
            }
            for source, part in single.groupby('source')
        ]
        lines += ['', 'All single regions:', '', *_markdown(pd.DataFrame(rows))]
    if 'ages' in tables:
        lines += ['', '## Predicted ages of the people of the agreement', '']
        lines += _markdown(age_errors(tables['ages']))
    return '\n'.join(lines) + '\n'


def age_errors(ages: pd.DataFrame) -> pd.DataFrame:
    """Return mean absolute error, bias and r of predicted ages by source."""
    rows = []
    for source, part in [('all', ages), *ages.groupby('source')]:
        error = (part['predicted_age'] - part['age']).dropna()
        known = part.dropna()
        r = np.corrcoef(known['age'], known['predicted_age'])[0, 1] if len(known) > 2 else np.nan
        rows.append({
            'source': source,
            'n': len(error),
            'mae': error.abs().mean(),
            'bias': error.mean(),
            'r': r,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _changes_summary(changes: pd.DataFrame) -> list[str]:
    rows = []
    for (change, warp), part in changes.groupby(['change', 'warp'], sort=False):
        middle = part['recovery'].median()
        row = {
            'change': change,
            'warp': warp,
            'n': len(part),
            'true ratio': part['true_ratio'].median(),
            'measured ratio': part['ratio'].median(),
            'median recovery': middle,
            'lowest': part['recovery'].min(),
            'highest': part['recovery'].max(),
            'within 0.7 to 1.3': 'yes' if LIMITS[0] <= middle <= LIMITS[1] else 'no',
        }
        if 'age_change' in part:
            row['median change of age'] = part['age_change'].median()
            row['sign as expected'] = f'{part["as_expected"].sum()} of {len(part)}'
        rows.append(row)
    return _markdown(pd.DataFrame(rows))


def _guises_summary(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    table = tables['variation']
    wide = 100 * table.pivot(index='region', columns='participant', values='cv')
    wide['share, median'] = (
        100 * table[table['participant'] == 'median'].set_index('region')['share_cv']
    )
    order = table['region'].unique()
    out = ['Coefficient of variation, %:', '', *_markdown(wide.loc[order].reset_index())]
    if 'age' in tables['guises']:
        by_head = tables['guises'].groupby('participant')['age']
        ages = by_head.agg(youngest='min', oldest='max')
        ages['difference'] = ages['oldest'] - ages['youngest']
        out += ['', 'Predicted age over the guises:', '', *_markdown(ages.reset_index())]
    return out


def _markdown(table: pd.DataFrame) -> list[str]:
    def text(value: Any) -> str:
        if isinstance(value, float):
            return '' if np.isnan(value) else f'{value:.3g}' if abs(value) < 10 else f'{value:.1f}'
        return str(value)

    lines = [table.columns.tolist(), ['---'] * table.shape[1], *table.values.tolist()]
    return [f'| {" | ".join(map(text, line))} |' for line in lines]


def write(tables: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Write tables as TSV with four significant digits."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f'{name}.tsv', sep='\t', index=False, na_rep='n/a', float_format='%.5g')


TESTS = {'changes': run_changes, 'guises': run_guises, 'agreement': run_agreement}


def chosen_people(people: pd.DataFrame, test: str, number: int | None) -> pd.DataFrame:
    """Return who takes part in a test."""
    if test == 'agreement':
        return spread_out(people[people['source'].isin(SOURCES.values())], number)
    if test == 'changes':
        parts = [
            of_all_ages(people[people['source'] == source], n)
            for source, n in CHANGED_HEADS.items()
        ]
        return pd.concat(parts)
    listed = people.reindex(GUISE_HEADS)
    return listed.assign(participant=GUISE_HEADS, network=listed['network'].fillna('all'))


def main(
    arguments: Sequence[str] | None = None,
    measuring: Measuring | None = None,
    ager: Ager | None = None,
) -> int:
    """Run the tests.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line.
    measuring : callable, optional
        Measures instead of the packaged network.
    ager : callable, optional
        Predicts ages instead of a bundle.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('shared', type=Path, help='folder of the shared development data')
    parser.add_argument('out', type=Path, help='folder for the tables')
    parser.add_argument('--list', type=Path, dest='listed', help='who is unseen by which member')
    parser.add_argument('--people', type=int, default=40, help='number in the agreement, 0: all')
    parser.add_argument('--bundle', type=Path, help='a model of region volumes: tells ages, too')
    parser.add_argument('--tests', nargs='+', choices=list(TESTS), default=list(TESTS))
    parser.add_argument('--mirror', action='store_true', help='mirror images, too: twice the time')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', datefmt='%H:%M:%S')
    facts: dict[str, Any] = {}
    if measuring is None:
        from bids_brainage.segmentation.weights import card

        measuring = packaged_measuring(mirror=options.mirror)
        facts['weights'] = f'version {card()["version"]}, SHA-256 {card()["weights_sha256"]}'
    if options.bundle:
        ager = bundle_ager(options.bundle)
    people = read_people(options.shared, options.listed)
    facts['mirror'] = 'yes' if options.mirror else 'no'
    facts['members'] = (
        'each person of the list by the member that the list names, others by the ensemble'
        if options.listed
        else 'everybody by the ensemble, which may have been trained on them'
    )
    facts['masks'] = 'labels of DLMUSE; in the guises deepbet once for each head, moved with it'
    if 'changes' in options.tests and not radial_is_there():
        facts['bidsgate'] = 'not on the path: its changes are left out'
    tables: dict[str, pd.DataFrame] = {}
    for name in options.tests:
        start = time.process_time()
        chosen = chosen_people(people, name, options.people or None)
        tables |= TESTS[name](chosen, options.shared, measuring, ager)
        facts[f'CPU seconds, {name}'] = round(time.process_time() - start)
        write(tables, options.out)
        summary = summarise(tables, facts)
        options.out.joinpath('summary.md').write_text(summary, 'utf-8')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
