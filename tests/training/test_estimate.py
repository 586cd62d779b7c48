"""What is said of a training before it begins."""

import pytest
from training_phantom import people

from bids_brainage.errors import OptionError
from bids_brainage.training.estimate import (
    COPIES,
    GIB,
    LIBRARIES_GB,
    Step,
    estimate_words,
    row_bytes,
    rows_at_once,
    split_words,
    try_step,
)
from bids_brainage.training.prepare import input_block
from bids_brainage.training.recipe_check import make_recipe
from bids_brainage.training.splits import TEST, TRAINING, VALIDATION, Assignment

pytestmark = pytest.mark.usefixtures('one_thread')


def assignments(folds=1):
    roles = [TRAINING] * 6 + [VALIDATION] * 2 + [TEST] * 2
    return [
        Assignment(item, fold, role)
        for fold in range(1, folds + 1)
        for item, role in zip(people(10), roles, strict=True)
    ]


def test_split_is_told_in_people():
    assert split_words(assignments()) == '6 to train on, 2 to choose the epoch, 2 to test (people)'
    assert split_words(assignments(5)).endswith('2 to test (people), in the first of 5 folds')
    twice = [*assignments(), Assignment(people(1)[0], 1, TRAINING)]
    assert split_words(twice).startswith('6 to train on')


def test_rows_on_disk_have_two_bytes_a_voxel_and_tables_eight():
    recipe = make_recipe('resnet_only', {'data': {'coarsen': 4}})
    declared = input_block('resnet_only', recipe)
    x, y, z = declared['shape']
    assert row_bytes(declared) == 2 * x * y * z
    volumes = input_block('volumes', make_recipe('volumes', {}))
    assert row_bytes(volumes) == 8 * volumes['shape'][0]


@pytest.mark.parametrize(
    ('limit', 'processes', 'least', 'rows'),
    [
        (5.6, 1, 1, None),  # 0.6 + 1 + 8 x 0.5
        (4.0, 1, 1, 4),
        (2.1, 1, 1, 1),
        (7.2, 2, 1, None),  # each 1.6 + 4 x 0.5
        (6.0, 2, 1, 2),
        (3.2, 1, 2, 3),  # of three and two rows, both parts can be normalised
    ],
)
def test_a_batch_that_does_not_fit_goes_in_parts_that_do(limit, processes, least, rows):
    recipe = make_recipe('resnet_only', {'run': {'batch_size': 8}})
    step = Step(forward=10.0, whole=30.0, row_gb=0.5, weights_gb=1.0, least=least)
    assert rows_at_once(step, recipe, limit, processes) == rows


@pytest.mark.parametrize(('limit', 'processes', 'least'), [(1.9, 1, 1), (3.5, 2, 1), (2.7, 1, 2)])
def test_a_training_of_which_not_even_one_part_fits_is_refused(limit, processes, least):
    recipe = make_recipe('resnet_only', {'run': {'batch_size': 8}})
    step = Step(forward=10.0, whole=30.0, row_gb=0.5, weights_gb=1.0, least=least)
    with pytest.raises(OptionError, match=r'--mem.*coarsen'):
        rows_at_once(step, recipe, limit, processes)


def test_time_and_memory_grow_with_people_batch_and_folds():
    recipe = make_recipe('resnet_only', {'run': {'epochs': 10, 'batch_size': 4}})
    step = Step(forward=10.0, whole=30.0, row_gb=0.5, weights_gb=1.0)
    memory, seconds = estimate_words(step, recipe, assignments())
    assert f'at least {LIBRARIES_GB + 1 + 4 * 0.5:.1f} GB' in memory
    assert 'about 3 min an epoch' in seconds  # 6 x 30 s and 2 x 10 s
    assert 'at most 33 min for 10 epochs' in seconds
    assert (
        'at most 2 h 47 min for 10 epochs of 5 folds'
        in estimate_words(step, recipe, assignments(5))[1]
    )
    memory, seconds = estimate_words(step, recipe, assignments(), processes=2)
    assert f'at least {LIBRARIES_GB + 1 + 2 * 0.5:.1f} GB' in memory
    assert 'about 100 s' not in seconds and 'about 2 min an epoch' in seconds


def test_step_measures_weights_and_what_a_row_holds():
    from bids_brainage.models import create_model
    from bids_brainage.training.network import arch_options

    small, large = (make_recipe('resnet_only', {'data': {'coarsen': factor}}) for factor in (4, 3))
    blocks = [input_block('resnet_only', recipe) for recipe in (small, large)]
    steps = [
        try_step('resnet_only', recipe, block)
        for recipe, block in zip((small, large), blocks, strict=True)
    ]
    network = create_model(
        'resnet_only', **arch_options('resnet_only', large, blocks[1], (20, 80))
    )
    n = sum(p.numel() for p in network.parameters())
    assert steps[1].weights_gb == pytest.approx(COPIES * 4 * n / GIB)
    assert steps[1].row_gb > 1.5 * steps[0].row_gb > 0
    assert 0 < steps[1].forward < steps[1].whole
