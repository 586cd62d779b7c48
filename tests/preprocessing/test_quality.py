"""Every flag has its reason, and is raised just beyond its threshold and not within."""

import ast
from pathlib import Path

import pytest

import bids_brainage
from bids_brainage.preprocessing.bold.quality import bold_flags
from bids_brainage.preprocessing.quality import (
    flag_table,
    image_flags,
    prediction_flags,
    threshold,
)
from bids_brainage.runs.combine import MEMBER_MISSING, SEX_MISSING
from bids_brainage.runs.settle import NO_MAP

KEYS = {'label', 'severity', 'threshold', 'unit', 'explanation', 'reason', 'advice'}
GOOD = {
    'n_nonfinite': 0, 'raised_by': 0.0, 'slice_thickness_mm': 1.0, 'border_cm2': 0.0,
    'mask_ml': 1400.0, 'overlap': 0.98, 'beyond_ml': 1.0, 'similarity': 0.8, 'scale': 0.8,
    'rotation_degrees': 10.0, 'contrast': 1.5, 'header_size_error_percent': 0.0,
    'header_angle_degrees': 0.0, 'header_no_form': 0.0, 'header_foreign_unit': 0.0, 'mp2rage': 0.0,
    'head_litres': 1.5, 'brain_share': 0.75, 'surface_holes': 20.0, 'hemispheres_missing': 0.0,
    'prepared_elsewhere': 0.0, 'cat12_maps': 0.0, 'cat12_quality_percent': 85.0,
    'cat12_voxel_mm': 0.9,
}  # fmt: skip
MEASURE_OF = {
    'tables_head': 'head_litres',
    'tables_share': 'brain_share',
    'tables_holes': 'surface_holes',
    'tables_hemisphere': 'hemispheres_missing',
    'header_voxel_size': 'header_size_error_percent',
    'header_orientation': 'header_angle_degrees',
    'header_no_orientation': 'header_no_form',
    'header_unit': 'header_foreign_unit',
    'mp2rage': 'mp2rage',
    'external_preprocessing': 'prepared_elsewhere',
    'cat12_maps': 'cat12_maps',
    'cat12_quality': 'cat12_quality_percent',
    'cat12_resampled': 'cat12_voxel_mm',
    'image_nonfinite': 'n_nonfinite',
    'intensities_centred': 'raised_by',
    'anisotropic': 'slice_thickness_mm',
    'field_of_view_cut': 'border_cm2',
    'mask_volume': 'mask_ml',
    'mask_disagreement': 'overlap',
    'mask_beyond_brain': 'beyond_ml',
    'registration_similarity': 'similarity',
    'registration_scale': 'scale',
    'registration_rotation': 'rotation_degrees',
    'tissue_contrast': 'contrast',
}
PREDICTION = {
    'predicted_age': 50.0, 'age': 48.0, 'age_range': (20.0, 90.0), 'interval': (42.0, 58.0),
    'trained': True, 'typicality': 0.5, 'outside_brain': 0.1, 'note': '',
}  # fmt: skip
STEP = 1e-6
SERIES = {name: flag for name, flag in flag_table().items() if 'measure' in flag}
"""Flags of BOLD series, whose rule stands beside the threshold."""

COMBINED = {NO_MAP, MEMBER_MISSING, SEX_MISSING}
"""Flags of rows that combine models; `test_combined` raises them."""


def raised_in_code():
    """Return the names of all flags that stand in the program's code."""
    known, found = set(flag_table()), set()
    for path in Path(bids_brainage.__file__).parent.rglob('*.py'):
        if path.name == 'parser.py' or 'reports' in path.parts:
            continue
        tree = ast.parse(path.read_text('utf-8'))
        found |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)} & known
    return found


def test_every_flag_is_complete():
    for name, flag in flag_table().items():
        assert set(flag) - {'measured'} == KEYS | (
            {'measure', 'flag_when'} if name in SERIES else set()
        ), name
        assert flag['severity'] in ('stop', 'caution', 'note'), name
        for key in KEYS - {'threshold'}:
            assert flag[key], (name, key)
        for key in ('explanation', 'reason', 'advice'):
            assert flag[key].endswith('.'), (name, key)


def test_every_flag_is_raised_somewhere_and_every_raised_flag_is_known():
    assert raised_in_code() | set(SERIES) == set(flag_table())
    beyond = {
        rule['measure']: rule['threshold'] + (STEP if rule['flag_when'] == 'above' else -STEP)
        for rule in SERIES.values()
    }
    assert set(bold_flags(beyond)) == set(SERIES)
    everything_bad = image_flags(
        {
            'header_size_error_percent': 9, 'header_angle_degrees': 9, 'header_no_form': 1,
            'header_foreign_unit': 1, 'mp2rage': 1, 'n_nonfinite': 9, 'raised_by': 1,
            'slice_thickness_mm': 9, 'border_cm2': 99,
            'mask_ml': 1, 'overlap': 0, 'beyond_ml': 99, 'similarity': 0, 'scale': 9,
            'rotation_degrees': 170, 'contrast': 9, 'head_litres': 9, 'brain_share': 0.1,
            'surface_holes': 999, 'hemispheres_missing': 1, 'prepared_elsewhere': 1,
            'cat12_maps': 1, 'cat12_quality_percent': 70, 'cat12_voxel_mm': 1.5,
        }
    )  # fmt: skip
    assert set(everything_bad) == set(MEASURE_OF)
    worst = prediction_flags(
        predicted_age=99, age=15, age_range=(20, 90), interval=(0, 99), trained=False,
        typicality=1.0, outside_brain=1.0, note='predicted without T1w', simulated=True,
        beyond=True, estimated=True, other_maps=True,
    )  # fmt: skip
    elsewhere = {
        'tables_incomplete',
        'tables_other_program',
        'tables_longitudinal',
    }  # test_measure
    elsewhere |= {'learnt_from'}  # test_row
    seen = set(everything_bad) | set(worst) | {'sloppy'} | set(SERIES) | COMBINED | elsewhere
    assert seen == set(flag_table())


def test_good_scan_has_no_flag():
    assert image_flags(GOOD) == []
    assert prediction_flags(**PREDICTION) == []


@pytest.mark.parametrize('flag', MEASURE_OF)
def test_image_thresholds_hold_to_the_edge(flag):
    limit, measure = threshold(flag), MEASURE_OF[flag]
    if isinstance(limit, list):
        beyond, within = [limit[0] - STEP, limit[1] + STEP], limit
    else:
        sign = 1 if GOOD[measure] < limit or GOOD[measure] == limit == 0 else -1
        beyond, within = [limit + sign * STEP], [limit]
    for value in beyond:
        assert image_flags(GOOD | {measure: value}) == [flag]
    for value in within:
        assert image_flags(GOOD | {measure: value}) == []


@pytest.mark.parametrize(
    ('flag', 'beyond', 'within'),
    [
        ('untrained_model', {'trained': False}, {'trained': True}),
        ('measure_outside_training', {'beyond': True}, {'beyond': False}),
        ('age_outside_training', {'age': 20 - STEP}, {'age': 20.0}),
        ('age_outside_training', {'age': 90 + STEP}, {'age': 90.0}),
        ('predicted_at_limit', {'predicted_age': 20.0}, {'predicted_age': 20 + STEP}),
        ('predicted_at_limit', {'predicted_age': 90.0}, {'predicted_age': 90 - STEP}),
        ('unlike_training', {'typicality': 0.999 + STEP}, {'typicality': 0.999}),
        ('wide_interval', {'interval': (20.0, 60 + STEP)}, {'interval': (20.0, 60.0)}),
        ('saliency_outside_brain', {'outside_brain': 0.3 + STEP}, {'outside_brain': 0.3}),
        ('missing_modality', {'note': 'predicted without T1w'}, {'note': ''}),
        ('simulated', {'simulated': True}, {'simulated': False}),
    ],
)
def test_prediction_thresholds_hold_to_the_edge(flag, beyond, within):
    assert prediction_flags(**PREDICTION | beyond) == [flag]
    assert prediction_flags(**PREDICTION | within) == []


@pytest.mark.parametrize('flag', MEASURE_OF)
def test_measure_that_is_not_a_number_fails(flag):
    assert image_flags(GOOD | {MEASURE_OF[flag]: float('nan')}) == [flag]


def test_unknown_facts_raise_nothing():
    unknown = {'age': None, 'interval': None, 'typicality': None, 'outside_brain': None}
    assert prediction_flags(**PREDICTION | unknown) == []
    assert prediction_flags(**PREDICTION | {'age_range': (None, None), 'age': 5.0}) == []
