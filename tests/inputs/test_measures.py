"""Features of what other programs measured."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fit_tables import FREESURFER
from fit_tables import measures_of as of_row
from stats_tree import aparc, aseg, row_of_table, usual_cortex, usual_volumes

from bids_brainage.dataset.stats_files import read_cortex, read_volumes
from bids_brainage.errors import BundleError
from bids_brainage.inputs.kinds import prepare_input
from bids_brainage.inputs.measure_titles import (
    CORTICAL,
    LABELS,
    REGIONS,
    STRUCTURES,
    labels_of,
    measure_title,
)
from bids_brainage.inputs.measures import features_of, head_is_wrong, muse_volumes, quality_of
from bids_brainage.inputs.volumes import by_title, title_of
from bids_brainage.outputs import write_json, write_tsv

TABLE = Path(__file__).parents[3] / 'shared/data/normative/openneuro_freesurfer_age.csv.gz'
SAME = 1e-6
CORTEX = sum(usual_volumes()[f'{side}CortexVol'] for side in ('lh', 'rh'))
HEAD = {'eTIV': 1.5e6, 'BrainSegVolNotVent': 1.2e6}


def measures_of(folder, volumes, sides):
    """Write stats files and read them again."""
    (folder / 'aseg.stats').write_text(aseg(volumes))
    found = read_volumes(folder / 'aseg.stats')
    for side, cortex in sides.items():
        (folder / f'{side}.stats').write_text(aparc(cortex))
        found |= read_cortex(folder / f'{side}.stats', side)
    return found


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('Hippocampus/brain', math.log(8400 / 1160000)),
        ('Brain-Stem/brain', math.log(21000 / 1160000)),
        ('white matter/brain', math.log(461000 / 1160000)),
        ('brain', math.log(1160000)),
        ('brain/head', math.log(1160000 / 1550000)),
        ('cortex thickness', math.log(2.45)),
        ('insula thickness/cortex thickness', math.log(usual_cortex()['insula'][0] / 2.45)),
        ('cortex area/brain', math.log(2 * 88000 / 1160000)),
        ('insula area/cortex area', math.log(usual_cortex()['insula'][1] / 88000)),
        ('insula volume/cortex', math.log(2 * math.prod(usual_cortex()['insula']) / CORTEX)),
    ],
)
def test_a_feature_against_its_formula(tmp_path, name, expected):
    both = {'lh': usual_cortex(), 'rh': usual_cortex()}
    found = measures_of(tmp_path, usual_volumes(), both)
    assert features_of(found, [name])[0] == pytest.approx(expected, abs=1e-12)


def test_one_side_counts_for_both_and_what_is_absent_is_not_known(tmp_path):
    one = measures_of(tmp_path, usual_volumes(), {'rh': usual_cortex()})
    two = measures_of(tmp_path, usual_volumes(), {'lh': usual_cortex(), 'rh': usual_cortex()})
    names = ['insula thickness/cortex thickness', 'cortex area/brain', 'insula volume/cortex']
    np.testing.assert_allclose(features_of(one, names), features_of(two, names), atol=1e-12)
    assert quality_of(one)['hemispheres_missing'] == 1
    assert quality_of(two)['hemispheres_missing'] == 0
    assert np.isnan(features_of(HEAD, ['cortex thickness', 'Caudate/brain'])).all()


@pytest.mark.parametrize(
    ('measures', 'wrong'),
    [
        (HEAD, False),
        ({**HEAD, 'eTIV': 2.3e6}, True),
        ({**HEAD, 'eTIV': 0.8e6}, True),
        ({**HEAD, 'eTIV': 1.25e6}, True),  # 96 % brain
        ({**HEAD, 'eTIV': 2.1e6}, True),  # 57 % brain
        ({'BrainSegVolNotVent': 1.2e6}, False),
    ],
)
def test_a_wrong_size_of_the_head_is_not_used(measures, wrong):
    assert head_is_wrong(measures) is wrong
    left_out = np.isnan(features_of(measures, ['brain/head'])[0])
    assert left_out == (wrong or 'eTIV' not in measures)
    assert np.isfinite(features_of(measures, ['brain'])[0])


def test_regions_of_muse_are_summed_up():
    found = {f'MUSE-{code}': 1000.0 for code in range(2, 400)} | {'MUSE-600': 9000.0}
    volumes = muse_volumes(found)
    assert volumes['hippocampus'] == 2.0
    assert volumes['csf'] == 9.0
    assert all(np.isfinite(list(volumes.values())))


def test_a_table_is_prepared_for_the_models_that_take_it(tmp_path):
    path = tmp_path / 'sub-01_measures.tsv'
    write_tsv(path, [{'measure': k, 'value': v} for k, v in HEAD.items()], ['measure', 'value'])
    write_json(path.with_suffix('.json'), {'Program': 'freesurfer'})
    declared = {
        'kind': 'measures', 'space': None, 'features': ['brain/head'], 'programs': ['freesurfer'],
    }  # fmt: skip
    prepared = prepare_input(declared, {'measures': path})
    assert prepared.arrays[0] == pytest.approx([math.log(0.8)])
    with pytest.raises(BundleError, match='made for measures of dlmuse, found those of freesurf'):
        prepare_input({**declared, 'programs': ['dlmuse']}, {'measures': path})


def test_titles_tell_features_apart():
    names = [f'{name}/brain' for name in STRUCTURES]
    names += [f'{name} thickness/cortex thickness' for name in CORTICAL if name]
    titles = by_title(dict.fromkeys([*names, 'brain', 'brain/head'], 1.0), 'measures')
    assert len(titles) == len(names) + 2
    assert set(CORTICAL) - {None} <= set(REGIONS) and set(LABELS) == set(STRUCTURES)
    assert title_of('lateral_ventricle/brain', 'measures') == 'Lateral ventricles'


def test_what_is_measured_of_a_region_is_told_together():
    names = [f'insula {what}/cortex' for what in ('thickness', 'area', 'volume')]
    assert by_title(dict.fromkeys(names, 1.0), 'measures') == {'Insula': 3.0}
    assert [labels_of(name) for name in names] == [(1035, 2035)] * 3
    assert measure_title('cortex area/brain') == 'Cortex: surface'


@pytest.mark.shared
@pytest.mark.skipif(not TABLE.is_file(), reason='tables of real people not there')
def test_rows_of_real_people_written_as_stats_files_give_the_same_features(tmp_path):
    rows = pd.read_csv(TABLE).dropna(axis='rows', subset=['lh_parahippocampal_ThickAvg'])
    for row in rows.iloc[::500].to_dict('records'):
        found = measures_of(tmp_path, *row_of_table(row))
        expected = features_of(of_row(row), FREESURFER)
        np.testing.assert_allclose(features_of(found, FREESURFER), expected, atol=SAME)
        assert np.isfinite(expected).sum() >= len(expected) - 1
