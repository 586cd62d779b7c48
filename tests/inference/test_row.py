"""Rows of predictions: a person from whom the model has learnt is told so."""

from types import SimpleNamespace

import pytest

from bids_brainage.flags import flag_table
from bids_brainage.inference.row import prediction_row

BUNDLE = SimpleNamespace(
    name='net.mine', version='1',
    metadata={'training': {'age_min': 20.0, 'age_max': 80.0}, 'bias_correction': None},
)  # fmt: skip
PREDICTION = {'predicted_age': 41.0, 'predicted_age_sd': None, 'interval': None}


@pytest.mark.parametrize(
    ('seen', 'flags', 'expected'),
    [
        ('true', ['sloppy'], 'sloppy;learnt_from'),
        ('true', [], 'learnt_from'),
        ('false', ['sloppy'], 'sloppy'),
        ('unknown', [], None),
    ],
)
def test_who_trained_the_model_is_flagged(seen, flags, expected):
    scan = {'participant_id': 'sub-01', 'source': 'bids:raw:x', 'age': 40.0, 'in_training': seen}
    row = prediction_row(scan, PREDICTION, BUNDLE, flags)
    assert row['qc_flag'] == expected and row['in_training'] == seen
    assert 'predictions.tsv' in flag_table()['learnt_from']['advice']
