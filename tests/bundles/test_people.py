"""Who a model has learnt from is told without naming anybody."""

import json

import pytest

from bids_brainage.bundles.people import in_any_training, in_training, people_block

ROLES = {
    'training': [('Study', '01'), ('Study', '02'), ('Second', '07')],
    'validation': [('Study', '02'), ('Study', '03')],
    'test': [('Study', '01'), ('Study', '04'), ('Third', '01')],
}


@pytest.mark.parametrize(
    ('dataset', 'label', 'expected'),
    [
        ('Study', '01', 'true'),
        ('Study', '02', 'true'),
        ('Study', '03', 'true'),  # chose the epoch
        ('Study', '04', 'false'),
        ('Study', '05', 'false'),  # came later
        ('Second', '07', 'true'),
        ('Second', '01', 'false'),
        ('Third', '01', 'false'),
        ('Other', '01', 'unknown'),
    ],
)
def test_people_are_known_by_dataset_and_label(dataset, label, expected):
    training = json.loads(json.dumps({'people': people_block('salt', ROLES)}))
    assert in_training(training, dataset, label) == expected


def test_without_a_list_nobody_is_known():
    assert in_training({}, 'Study', '01') == 'unknown'


def test_nobody_is_named_and_lists_of_two_bundles_cannot_be_compared():
    one, two = (people_block(salt, {'training': [('My study', 'kim07')]}) for salt in 'ab')
    assert 'kim07' not in json.dumps(one) and 'My study' not in json.dumps(one)
    assert one['training'] != two['training'] and one['datasets'] != two['datasets']


def test_a_person_counts_once_by_what_is_told_most():
    block = people_block('s', ROLES)
    assert [len(block[role]) for role in ('training', 'validation', 'test')] == [3, 1, 2]


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        (('false', 'true', 'unknown'), 'true'),
        (('false', None), 'unknown'),
        (('false', 'false'), 'false'),
    ],
)
def test_what_is_computed_from_several_models(values, expected):
    assert in_any_training(values) == expected
