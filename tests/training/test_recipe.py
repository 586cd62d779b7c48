"""Recipes hold the papers' values, and refuse what has no meaning."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_brainage.errors import OptionError
from bids_brainage.models import model_info, trainable_models
from bids_brainage.models.views import shifted
from bids_brainage.training.augment import (
    NODES,
    Change,
    apply_change,
    augment,
    draw,
    warped,
    wavy,
)
from bids_brainage.training.losses import (
    AgeLoss,
    average_ranks,
    difference_loss,
    rank_loss,
    soft_labels,
    soft_ranks,
)
from bids_brainage.training.recipe import AugmentationRecipe, LossRecipe, Recipe
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.schedule import best_epoch, finished, learning_rate, plateau

TRAINABLE = [name for name in trainable_models() if model_info(name).backend == 'torch']


@pytest.mark.parametrize('arch', TRAINABLE)
def test_every_architecture_has_a_sound_recipe_that_survives_storage(arch):
    recipe = make_recipe(arch, {})
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_published_values():
    a, b, c, d = (
        make_recipe(name, {})
        for name in ('resnet_crossvit', 'vgg8', 'densenet169_clinical', 'amagenet')
    )
    assert (a.loss.auxiliary_weight, a.loss.difference_weight) == (0.005, 0.5)
    assert (a.optimiser.name, a.optimiser.weight_decay) == ('adamw', 1e-5)
    assert (a.run.batch_size, a.run.epochs, a.run.patience) == (8, 100, 15)
    assert (b.loss.main, b.run.batch_size, b.run.patience, b.split.method) == ('l1', 3, 10, 'kl')
    assert (c.optimiser.beta2, c.optimiser.weight_decay, c.run.epochs) == (0.9, 1e-4, 70)
    assert c.augmentation.shift_voxels == (10, 10, 2)
    assert (d.loss.scale, d.schedule.minimum_rate, d.split.selection) == ('range', 1e-6, 'nested')
    assert make_recipe('vit_only', {}).run == a.run


@pytest.mark.parametrize(
    ('arch', 'changes', 'words'),
    [
        ('vgg8', {'optimizer': {'lr': 1}}, ['Unknown section [optimizer]']),
        ('vgg8', {'optimiser': {'lr': 1.0}}, ['Unknown key lr', 'learning_rate']),
        ('vgg8', {'run': {'epochs': 1.5}}, ['run.epochs', 'expected int']),
        ('vgg8', {'run': {'epochs': 0}}, ['run.epochs', 'between']),
        ('vgg8', {'loss': {'main': 'cubic'}}, ['loss.main', 'mse or l1 or huber']),
        ('vgg8', {'loss': {'huber_delta_years': 2.0}}, ['no effect', 'only with huber']),
        ('aicbv_mamba', {'loss': {'main': 'huber'}}, ['huber is for ages']),
        (
            'vgg8',
            {'data': {'exclude_flags': ['blurred']}},
            ["'blurred' is no flag", 'mask_volume'],
        ),
        ('vgg8', {'schedule': {'patience': 3}}, ['no effect', 'plateau']),
        ('vgg8', {'data': {'synthetic_slices': True}}, ['clinical']),
        ('vgg8', {'model': {'depth': 3}}, ['model.depth', 'no such option']),
        ('resnet_only', {'model': {'cot': 'no'}}, ['model.cot', 'expected bool']),
        ('vit_only', {'model': {'cot': False}}, ['model.cot', 'no such option']),
        ('vgg8', {'model': {'input_shape': [1, 1, 1]}}, ['model.input_shape']),
        ('resnet_only', {'fusion': {'fit': 'val'}}, ['only System B']),
        ('resnet_only', {'loss': {'main': 'soft_bins'}}, ['soft_bins']),
        (
            'vgg8',
            {'split': {'folds': 3}, 'run': {'precision': '16'}},
            ['split.folds', 'precision'],
        ),
    ],
)
def test_meaningless_changes_are_refused_together(arch, changes, words):
    with pytest.raises(OptionError) as caught:
        make_recipe(arch, changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_soft_ranks_of_the_specification():
    ranks = soft_ranks(torch.tensor([10.0, 12.0, 11.0, 40.0]))
    torch.testing.assert_close(
        ranks, torch.tensor([0.347036, 0.652964, 0.5, 1.0]), atol=1e-6, rtol=0
    )


def test_average_ranks_share_ties():
    ranks = average_ranks(torch.tensor([3.0, 1.0, 3.0, 2.0]))
    assert ranks.tolist() == [3.5 / 4, 1 / 4, 3.5 / 4, 2 / 4]


def test_difference_loss_equals_all_pairs():
    generator = torch.Generator().manual_seed(0)
    p, y = 60 * torch.rand(2, 9, generator=generator, dtype=torch.float64)
    pairs = [((p[i] - p[j]) - (y[i] - y[j])) ** 2 for i in range(9) for j in range(i + 1, 9)]
    torch.testing.assert_close(difference_loss(p, y), torch.stack(pairs).mean(), rtol=1e-9, atol=0)


def test_auxiliary_loss_is_weighted_and_absent_for_one_sample():
    recipe = LossRecipe(auxiliary_weight=0.005, difference_weight=0.5)
    p, y = torch.tensor([10.0, 30.0, 20.0]), torch.tensor([12.0, 25.0, 28.0])
    expected = 0.005 * (rank_loss(p, y) + 0.5 * difference_loss(p, y))
    torch.testing.assert_close(AgeLoss(recipe).auxiliary(p, y), expected)
    assert AgeLoss(recipe).auxiliary(p[:1], y[:1]) == 0


def test_main_losses():
    p, y = torch.tensor([10.0, 30.0]), torch.tensor([12.0, 25.0])
    assert AgeLoss(LossRecipe(main='mse')).main(p, y).tolist() == [4, 25]
    assert AgeLoss(LossRecipe(main='l1')).main(p, y).tolist() == [2, 5]
    huber = LossRecipe(main='huber', huber_delta_years=3.0)
    assert AgeLoss(huber).main(p, y).tolist() == [2, 10.5]  # 2**2 / 2 and 3 * (5 - 3 / 2)
    # in units of the range of ages the border stays where it was
    assert AgeLoss(huber, 10.0).main(p, y).tolist() == pytest.approx([0.02, 0.105])
    assert AgeLoss(LossRecipe(main='mse'), 10.0).main(p, y).tolist() == pytest.approx([0.04, 0.25])


def test_distribution_loss_is_zero_at_the_soft_label_only():
    centres = torch.arange(40, 80) + 0.5
    age = torch.tensor([55.2, 70.0])
    loss = AgeLoss(LossRecipe(main='soft_bins'))
    label = soft_labels(age, centres, 1.0)
    same = loss.distribution(label.clamp_min(1e-30).log(), age, centres)
    flat = loss.distribution(torch.full((2, 40), math.log(1 / 40)), age, centres)
    assert same.abs().max() < 1e-5 < 1 < flat.min()
    torch.testing.assert_close(label @ centres, age, atol=1e-3, rtol=0)


def test_warmup_cosine_follows_the_specification():
    recipe = make_recipe('resnet_crossvit', {})
    steps = 10
    assert learning_rate(recipe, 0, steps, []) == 1e-6
    assert learning_rate(recipe, 25, steps, []) == pytest.approx(1e-6 + (2e-4 - 1e-6) / 2)
    assert learning_rate(recipe, 50, steps, []) == pytest.approx(2e-4)
    middle = 50 + (1000 - 50) // 2
    assert learning_rate(recipe, middle, steps, []) == pytest.approx((2e-4 + 1e-5) / 2)
    assert learning_rate(recipe, 1000, steps, []) == pytest.approx(1e-5)


def test_plateau_is_that_of_torch():
    rng = np.random.default_rng(0)
    losses = (np.exp(-np.arange(60) / 8) + 0.2 * rng.random(60)).tolist()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=5, min_lr=1e-6
    )
    for count, loss in enumerate(losses, start=1):
        scheduler.step(loss)
        expected = optimiser.param_groups[0]['lr']
        assert plateau(losses[:count], 1e-4, 5, 0.5, 1e-6) == pytest.approx(expected)
    assert expected < 5e-5


def test_step_schedule_of_sfcn():
    recipe = make_recipe('sfcn', {})
    rates = [learning_rate(recipe, epoch * 7, 7, []) for epoch in (0, 29, 30, 60)]
    assert rates == pytest.approx([0.01, 0.01, 0.003, 0.0009])


def test_stopping():
    assert not finished([5, 4, 4.5], 10, 2)
    assert finished([5, 4, 4.5, 4.2], 10, 2)
    assert finished([5, 4, 3], 3, 0)
    assert not finished([5] * 50, 100, 0)
    assert best_epoch([float('nan'), 4, 3, 3]) == 2


def test_shift_fills_with_zeros_and_moves_what_it_says():
    volume = torch.arange(1, 28.0).reshape(1, 3, 3, 3)
    moved = shifted(volume, (1, -1, 0))
    assert torch.equal(moved[:, 1:, :2], volume[:, :2, 1:])
    assert moved[:, 0].abs().sum() == 0 and moved[:, :, 2].abs().sum() == 0
    assert shifted(volume, (5, 0, 0)).abs().sum() == 0


def test_gamma_gain_and_mirror():
    volume = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(1)) * 7
    largest = volume.max()
    changed = apply_change(volume, Change((0, 0, 0), True, 1.3, 0.8))
    torch.testing.assert_close(changed.flip(1), 0.8 * largest * (volume / largest) ** 1.3)


def test_noise_is_a_share_of_the_maximum_and_leaves_the_background():
    volume = torch.full((1, 40, 40, 40), 5.0)
    volume[:, :20] = 0
    changed = apply_change(volume, Change((0, 0, 0), False, 1.0, 2.0, 0.1, (3,)))
    assert changed[:, :20].abs().max() == 0
    brain = changed[:, 20:]
    assert brain.mean().item() == pytest.approx(10, abs=0.05)
    assert brain.std().item() == pytest.approx(2 * 0.1 * 5, rel=0.02)
    again = apply_change(volume, Change((0, 0, 0), False, 1.0, 2.0, 0.1, (4,)))
    assert not torch.equal(changed, again)


def test_smoothing_keeps_the_sum_inside_and_leaves_the_background():
    volume = torch.zeros(1, 21, 21, 21)
    volume[:, 2:] = 1e-9
    volume[0, 11, 10, 10] = 6.0
    changed = apply_change(volume, Change((0, 0, 0), False, 1.0, 1.0, smooth=1.2))[0]
    assert changed[:2].abs().max() == 0
    assert changed.sum().item() == pytest.approx(6, rel=1e-4)
    at = torch.arange(21.0) - 10
    spread = (changed.sum((0, 2)) * at**2).sum() / changed.sum()
    assert spread.item() == pytest.approx(1.2**2, rel=0.02)


def test_warp_moves_smoothly_by_what_it_says():
    shape = (48, 40, 44)
    ramp = torch.arange(48.0)[:, None, None].expand(shape)[None]
    changed = apply_change(ramp, Change((0, 0, 0), False, 1.0, 1.0, seed=(5,), warp=0.6))
    inner = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    moved = (changed - ramp)[inner]
    shares = wavy((5, 1), shape, 3)[0][inner[1:]]
    torch.testing.assert_close(moved[0], 0.6 * shares, atol=1e-4, rtol=0)
    assert 0.6 * 0.3 < moved.std() < 0.6
    assert moved.diff(dim=1).abs().max() < 0.6 * 6 * (NODES - 1) / (min(shape) - 1)
    torch.testing.assert_close(warped(ramp, torch.zeros(3, *shape)), ramp, atol=1e-3, rtol=0)


def test_shading_is_smooth_and_positive():
    flat = torch.full((1, 30, 40, 30), 2.0)
    flat[:, :10] = 0
    changed = apply_change(flat, Change((0, 0, 0), False, 1.0, 1.0, seed=(5,), shading=0.3))
    assert changed[:, :10].abs().max() == 0
    log = torch.log(changed[:, 10:] / 2)
    torch.testing.assert_close(log, 0.3 * wavy((5, 2), (30, 40, 30), 1)[:, 10:])
    assert 0.3 * 0.3 < log.std() < 0.3


def test_newer_changes_are_drawn_after_all_else():
    without = AugmentationRecipe(shift_voxels=(2, 2, 2), mirror=0.5, gamma=(0.7, 1.3))
    noisy = draw(replace(without, noise=0.2), 1, 2, 3)
    assert 0 < noisy.noise < 0.2
    assert replace(noisy, noise=0.0) == draw(without, 1, 2, 3)
    smoothed = draw(replace(without, noise=0.2, smooth=1.5), 1, 2, 3)
    assert 0 < smoothed.smooth < 1.5
    assert replace(smoothed, smooth=0.0) == noisy
    bent = draw(replace(without, noise=0.2, smooth=1.5, warp=0.7, shading=0.4), 1, 2, 3)
    assert 0 < bent.warp < 0.7 and 0 < bent.shading < 0.4
    assert replace(bent, warp=0.0, shading=0.0) == smoothed


def test_augmentation_depends_on_seed_epoch_and_sample_only():
    overrides = {'augmentation': {'noise': 0.05}}
    recipe = make_recipe('densenet169_clinical', overrides).augmentation
    images = torch.rand(3, 1, 24, 24, 12)
    whole = augment(images, [7, 8, 9], recipe, 0, 2)
    single = augment(images[1:2], [8], recipe, 0, 2)
    assert torch.equal(whole[1:2], single)
    assert not torch.equal(single, augment(images[1:2], [8], recipe, 0, 3))
    draws = [draw(recipe, 0, 0, k) for k in range(400)]
    shifts = np.array([change.shift for change in draws])
    assert shifts.min(axis=0).tolist() == [-10, -10, -2]
    assert shifts.max(axis=0).tolist() == [10, 10, 2]
    assert 0.4 < np.mean([change.mirror for change in draws]) < 0.6
    assert all(0.7 <= change.gamma <= 1.3 and 0.7 <= change.gain <= 1.3 for change in draws)


def test_no_augmentation_leaves_images_alone():
    images = torch.rand(2, 1, 4, 4, 4)
    assert augment(images, [0, 1], AugmentationRecipe(), 0, 0) is images
