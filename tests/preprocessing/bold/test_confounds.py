"""Confounds, models for short series, quality measures and their flags."""

from __future__ import annotations

import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError
from bids_brainage.outputs.files import write_tsv
from bids_brainage.preprocessing.bold import confounds, connectome, quality
from bids_brainage.preprocessing.bold.confounds import Denoising
from bids_brainage.preprocessing.bold.dictionary import describe_confounds

TR = 2.0
DVARS_TOLERANCE = 0.01  # relative, against nipype, which rounds quartiles to one of the values


def _table(n, seed=0, **changed):
    rng = np.random.default_rng(seed)
    values = rng.normal(500, 5, (300, n))
    half = np.arange(300) < 30
    parameters = np.cumsum(rng.normal(0, 0.02, (n, 6)) * [1, 1, 1, 0.01, 0.01, 0.01], axis=0)
    table = confounds.build_confounds(values, {'white_matter': half, 'csf': ~half}, parameters)
    return {**table, **changed}


def test_motion_expands_to_24_columns():
    table = confounds.motion_columns(np.arange(18.0).reshape(3, 6))
    assert len(table) == 24
    assert list(table['trans_y']) == [1, 7, 13]
    assert list(table['trans_y_derivative1'][1:]) == [6, 6]
    assert np.isnan(table['trans_y_derivative1'][0])
    assert list(table['rot_z_derivative1_power2'][1:]) == [36, 36]


def test_dvars_agrees_with_nipype(tmp_path, monkeypatch):
    import nibabel as nib
    from nipype.algorithms import confounds as of_nipype

    def yule_walker(x, order, rxx=None):
        return (x[1:] @ x[:-1]) / (x @ x)  # nipype takes this from nitime, which few have

    monkeypatch.setattr(of_nipype, '_AR_est_YW', yule_walker)

    rng = np.random.default_rng(4)
    noise = rng.normal(0, 8, (6, 6, 6, 240))
    noise[..., 1:] += 0.5 * noise[..., :-1]
    data = 700 + noise
    data[..., 30] += 25
    for name, values in (('bold', data), ('mask', np.ones((6, 6, 6)))):
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), tmp_path / f'{name}.nii')
    standard, plain, _ = of_nipype.compute_dvars(
        tmp_path / 'bold.nii', tmp_path / 'mask.nii', intensity_normalization=0
    )
    found, found_standard = confounds.dvars(data.reshape(216, 240).astype(np.float32))
    assert found[1:] == pytest.approx(100 * plain / data.mean(), rel=DVARS_TOLERANCE)
    assert found_standard[1:] == pytest.approx(standard, rel=DVARS_TOLERANCE)
    assert set(np.argsort(found_standard[1:])[-2:]) == {29, 30}


def test_quiet_noise_has_a_standardised_dvars_of_one():
    values = np.random.default_rng(1).normal(100, 1, (2000, 80))
    assert confounds.dvars(values)[1][1:].mean() == pytest.approx(1, abs=0.03)


def test_long_series_get_the_whole_model():
    model = confounds.select_confounds(_table(300), TR, Denoising())
    assert model.denoising == Denoising()
    assert len(model.columns) == 26
    # 0.09 Hz of a Nyquist frequency of 0.25 Hz, less the regressors
    assert model.freedom == pytest.approx(300 * 0.36 - 26)


@pytest.mark.parametrize(
    ('n', 'expected'),
    [(100, Denoising(24, True, 'cosine')), (30, Denoising(6, True, 'cosine')),
     (20, Denoising(6, False, 'cosine'))],
)  # fmt: skip
def test_short_series_get_a_smaller_model(n, expected):
    assert confounds.select_confounds(_table(n), TR, Denoising()).denoising == expected


def test_degrees_of_freedom_are_those_of_the_regression():
    table = _table(60)
    model = confounds.select_confounds(table, TR, Denoising(6, True, 'cosine'))
    cosines = confounds.high_pass_cosines(60, TR).shape[1]
    assert cosines == 2
    assert model.freedom == 60 - 8 - 2 - cosines


def test_moving_and_unsteady_volumes_are_left_out():
    table = _table(60)
    table['framewise_displacement'][[20, 40]] = [0.6, 0.51]
    table['non_steady_state_outlier00'] = np.eye(1, 60, 0)[0]
    keep = confounds.kept_volumes(table, 0.5)
    assert list(np.flatnonzero(~keep)) == [0, 20, 40]


def test_a_series_all_in_motion_is_refused():
    table = _table(40, framewise_displacement=np.full(40, 2.0))
    with pytest.raises(UnusableImageError, match='motion leaves 0 of 40'):
        confounds.select_confounds(table, TR, Denoising(), source='x.tsv')


def test_missing_columns_are_named():
    table = _table(200)
    del table['csf']
    with pytest.raises(UnusableImageError, match=r'x\.tsv: the columns csf are missing'):
        confounds.select_confounds(table, TR, Denoising(), source='x.tsv')


def test_table_goes_to_disk_and_back(tmp_path):
    table = _table(20)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    write_tsv(tmp_path / 'c.tsv', rows)
    back = confounds.read_confounds(tmp_path / 'c.tsv')
    assert list(back) == list(table)
    for name, values in table.items():
        np.testing.assert_array_equal(back[name], values)
    (tmp_path / 'empty.tsv').write_text('a\tb\n')
    with pytest.raises(UnusableImageError, match='no column of numbers'):
        confounds.read_confounds(tmp_path / 'empty.tsv')


def test_cleaning_removes_confounds_and_drift_and_keeps_the_band():
    n = 240
    t = np.arange(n) * TR
    rng = np.random.default_rng(3)
    nuisance = np.cumsum(rng.normal(size=n))
    wave = np.sin(2 * np.pi * 0.04 * t)
    fast = np.sin(2 * np.pi * 0.2 * t)
    keep = np.ones(n, bool)
    keep[100] = False
    mixed = np.stack([wave + 3 * nuisance + 0.01 * t + fast, fast + 0.01 * t], axis=1)
    mixed[100] += 50
    model = confounds.ConfoundModel(('x',), nuisance[:, None], keep, Denoising(), 50.0)
    clean = connectome.clean_series(mixed, model, TR)
    assert clean.shape == (n - 1, 2)
    assert np.corrcoef(clean[:, 0], wave[keep])[0, 1] > 0.97
    assert clean[20:-20, 1].std() < 0.05


def test_correlation_is_pearson_and_knows_dead_regions():
    rng = np.random.default_rng(0)
    series = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5))
    found = connectome.correlate(series)
    np.testing.assert_allclose(found, np.corrcoef(series.T), atol=1e-6)
    series[:, 2] = 7.0
    series[:, 4] = np.nan
    found = connectome.correlate(series)
    assert np.isnan(found[2, 0])
    assert np.isnan(found[0, 4])
    assert found[2, 2] == 1
    assert found[0, 1] == pytest.approx(np.corrcoef(series[:, 0], series[:, 1])[0, 1])


def _quality(**changed):
    model = confounds.select_confounds(_table(300), TR, Denoising())
    measures = quality.bold_quality(_table(300), model, np.ones(50), tr=TR, asked='all')
    return {**measures, **changed}


def test_a_good_series_has_no_flag():
    measures = _quality(coregistration_overlap=0.97, coregistration_coverage=1.0)
    assert quality.bold_flags(measures) == []
    assert measures['minutes_kept'] == pytest.approx(10)
    assert measures['confound_model_asked'] == 'all'


@pytest.mark.parametrize(
    ('changed', 'flag'),
    [({'mean_fd': 0.7}, 'bold_motion'), ({'share_scrubbed': 0.6}, 'bold_scrubbed'),
     ({'minutes_kept': 2.0}, 'bold_few_volumes'),
     ({'degrees_of_freedom': 12.0}, 'bold_few_degrees_of_freedom'),
     ({'share_regions_covered': 0.8}, 'bold_coverage'),
     ({'repetition_time_mismatch': True}, 'bold_wrong_tr'),
     ({'coregistration_overlap': 0.7}, 'bold_coregistration'),
     ({'coregistration_coverage': 0.5}, 'bold_cut_off')],
)  # fmt: skip
def test_each_flag_has_its_cause(changed, flag):
    assert quality.bold_flags(_quality(**changed)) == [flag]


def test_flags_say_why():
    for rule in quality.thresholds().values():
        assert rule['severity'] in ('stop', 'caution')
        assert all(rule[key] for key in ('label', 'explanation', 'reason', 'advice', 'unit'))


def test_column_descriptions_cover_the_table():
    table = {**_table(10), 'non_steady_state_outlier00': np.zeros(10)}
    texts = describe_confounds(table)
    assert list(texts) == list(table)
    assert texts['rot_x_power2']['Units'] == 'rad^2'
    assert all(text['Description'] != name for name, text in texts.items())
