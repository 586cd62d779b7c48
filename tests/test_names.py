"""File names: as the conventions want them, unique, and readable again."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath

import pytest

from bids_brainage import names as naming
from bids_brainage.errors import WorkflowError

S = 'MNI152NLin2009aSym'
ANAT = {'sub': '01', 'ses': '1', 'acq': 'mprage', 'ce': 'gd', 'rec': 'norm', 'run': '02'}
FUNC = {'sub': '01', 'ses': '1', 'task': 'rest', 'acq': 'mb', 'dir': 'AP', 'run': '1', 'echo': '2'}
ANAT_STEM = 'sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_ce-gd_rec-norm_run-02'
FUNC_STEM = 'sub-01/ses-1/func/sub-01_ses-1_task-rest_acq-mb_dir-AP_run-1_echo-2'

GRID = f'space-{S}_res-'

NAMES = [
    (
        {'space': S, 'res': '1', 'desc': 'preproc', 'suffix': 'T1w'},
        f'{GRID}1_desc-preproc_T1w.nii.gz',
    ),
    (
        {'space': S, 'res': '1', 'desc': 'brain', 'suffix': 'mask'},
        f'{GRID}1_desc-brain_mask.nii.gz',
    ),
    ({'space': S, 'res': '1', 'suffix': 'dseg'}, f'{GRID}1_dseg.nii.gz'),
    (
        {'space': S, 'res': '1', 'label': 'GM', 'suffix': 'probseg'},
        f'{GRID}1_label-GM_probseg.nii.gz',
    ),
    (
        {'space': S, 'res': '1', 'label': 'GM', 'desc': 'modulated', 'suffix': 'probseg'},
        f'{GRID}1_label-GM_desc-modulated_probseg.nii.gz',
    ),
    ({'from': 'T1w', 'to': S, 'suffix': 'xfm'}, f'from-T1w_to-{S}_mode-image_xfm.h5'),
    ({'from': S, 'to': 'T1w', 'suffix': 'xfm'}, f'from-{S}_to-T1w_mode-image_xfm.h5'),
    ({'suffix': 'brainage'}, 'brainage.tsv'),
    (
        {'space': S, 'res': '1', 'model': 'sfcndemo', 'desc': 'gradcam', 'suffix': 'saliency'},
        f'{GRID}1_model-sfcndemo_desc-gradcam_saliency.nii.gz',
    ),
]
ATLAS = ('space', 'atlas', 'seg', 'scale', 'stat', 'suffix')
FUNC_NAMES = [
    (
        {'space': S, 'res': '2', 'desc': 'preproc', 'suffix': 'bold'},
        f'{GRID}2_desc-preproc_bold.nii.gz',
    ),
    ({'desc': 'confounds', 'suffix': 'timeseries'}, 'desc-confounds_timeseries.tsv'),
    (
        dict(zip(ATLAS, (S, 'P', '7n', '100', 'mean', 'timeseries'), strict=True)),
        f'space-{S}_atlas-P_seg-7n_scale-100_stat-mean_timeseries.tsv',
    ),
    (
        {'space': S, 'atlas': 'P', 'stat': 'pearsoncorrelation', 'suffix': 'relmat'},
        f'space-{S}_atlas-P_stat-pearsoncorrelation_relmat.tsv',
    ),
    ({'suffix': 'brainage'}, 'brainage.tsv'),
]
CASES = [(ANAT | extra, f'{ANAT_STEM}_{end}') for extra, end in NAMES]
CASES += [(FUNC | extra, f'{FUNC_STEM}_{end}') for extra, end in FUNC_NAMES]


@pytest.mark.parametrize(('entities', 'expected'), CASES, ids=lambda value: str(value)[-60:])
def test_name_and_back(entities, expected):
    path = naming.derivative_path(entities)
    assert str(path) == expected
    parsed = naming.parse_name(path)
    assert {key: parsed[key] for key in entities} == entities
    assert parsed['datatype'] == path.parent.name
    again = {key: value for key, value in parsed.items() if key != 'datatype'}
    assert naming.derivative_path(again, parsed['datatype']) == path
    side = naming.derivative_path(entities | {'extension': 'json'})
    assert str(side) == expected.split('.')[0] + '.json'


def test_pybids_reads_the_same_entities():
    from bids.layout import Config, parse_file_entities

    extra = Config(
        'extra',
        entities=[
            {'name': 'statistic', 'pattern': '_stat-([a-zA-Z0-9+]+)'},
            {'name': 'scale', 'pattern': '_scale-([a-zA-Z0-9+]+)'},
        ],
    )
    long = naming.long_names() | {'res': 'res', 'den': 'den'}
    for entities, expected in CASES:
        found = parse_file_entities(f'/{expected}', config=['bids', 'derivatives', extra])
        for key, value in entities.items():
            name = long.get(key, key)
            if key not in ('run', 'echo'):
                assert found[name] == value, (expected, name)


def test_long_names_numbers_and_absent_entities():
    long = naming.derivative_path(
        {'subject': '1', 'session': None, 'run': 1, 'resolution': 1, 'label': 'GM'}
        | {'suffix': 'probseg'}
    )
    assert str(long) == 'sub-1/anat/sub-1_run-1_res-1_label-GM_probseg.nii.gz'


def test_order_of_all_entities_is_that_of_the_conventions():
    wanted = 'sub ses task acq ce rec dir run mod echo flip inv mt part space atlas seg scale '
    wanted += 'res den label stat model desc'
    order = [key for key in naming.long_names() if key not in ('from', 'to', 'mode', 'chunk')]
    assert order == wanted.split()
    for pattern in naming.patterns():
        keys = [key for key in naming.long_names() if f'{key}-{{{key}' in pattern]
        name = pattern.rsplit('/', 1)[1]
        places = [name.index(f'{key}-{{{key}') for key in keys]
        if 'xfm' not in pattern:
            assert places == sorted(places), pattern


def test_different_sources_never_share_a_name():
    choices = {
        'ses': (None, '1', '2'),
        'acq': (None, 'a'),
        'ce': (None, 'a'),
        'rec': (None, 'a'),
        'run': (None, '1', '01'),
        'part': (None, 'mag'),
        'chunk': (None, '1'),
    }
    for extra, _ in NAMES:
        names = [
            naming.derivative_path(
                {'sub': '1', **dict(zip(choices, values, strict=True)), **extra}
            )
            for values in itertools.product(*choices.values())
        ]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ('entities', 'message'),
    [
        ({'sub': '01', 'suffix': 'saliency', 'desc': 'gradcam'}, 'entity is missing'),
        ({'sub': '01', 'suffix': 'T1w', 'desc': 'preproc', 'colour': 'x'}, 'unknown'),
        ({'sub': '01', 'suffix': 'T1w', 'desc': 'pre_proc'}, 'letters and digits'),
        ({'sub': '01', 'suffix': 'T1w', 'desc': 'a', 'datatype': 'func'}, 'not allowed'),
        ({'suffix': 'brainage'}, 'entity is missing'),
        ({'sub': '01', 'suffix': 'T2w', 'desc': 'x'}, 'not allowed'),
    ],
)
def test_wrong_entities_are_refused(entities, message):
    with pytest.raises(WorkflowError, match=message):
        naming.derivative_path(entities)


@pytest.mark.parametrize('name', ['brain.nii.gz', 'sub-01_T1w', 'sub-01_x_T1w.nii', 'sub_T1w.nii'])
def test_foreign_names_are_refused(name):
    with pytest.raises(WorkflowError, match='not a BIDS file name'):
        naming.parse_name(name)


def test_other_places():
    assert naming.model_label('sfcn.demo') == 'sfcndemo'
    assert naming.model_label('densenet169_clinical.v1-b') == 'densenet169clinicalv1b'
    with pytest.raises(WorkflowError, match='letter or digit'):
        naming.model_label('._')
    assert naming.source_entities('sub-01_ses-a_run-1') == {'sub': '01', 'ses': 'a', 'run': '1'}
    assert naming.derivative_path(
        {'sub': '1', 'task': 't', 'desc': 'd', 'suffix': 'bold', 'extension': 'svg'}, 'figures'
    ) == PurePosixPath('sub-1/figures/sub-1_task-t_desc-d_bold.svg')
    assert str(naming.derivative_path({'sub': '1', 'suffix': 'sessions'})) == (
        'sub-1/sub-1_sessions.tsv'
    )
    assert str(naming.report_path('1', '2')) == 'sub-1_ses-2.html'
    assert str(naming.atlas_path('P', '7n', '100')) == 'atlas-P_seg-7n_scale-100_dseg.tsv'
    assert str(naming.atlas_path('P', description=True)) == 'atlas-P_description.json'
    assert str(naming.log_dir('r')) == 'logs/r'
    assert str(naming.log_dir('r', '1', '2')) == 'sub-1/ses-2/log/r'


def test_raw_names_with_odd_labels_are_split_and_refused_as_derivatives():
    odd = naming.split_name('sub-01_task-my-task_bold.nii.gz')
    assert odd == ({'sub': '01', 'task': 'my-task'}, 'bold', '.nii.gz')
    with pytest.raises(WorkflowError, match='not a BIDS file name'):
        naming.parse_name('sub-01_task-my-task_bold.nii.gz')
    assert naming.split_name('T1w.json') == ({}, 'T1w', '.json')
    for name in ('sub-01.nii', 'sub-01_x_T1w.nii', 'sub-_T1w.nii', 'group_accuracy.tsv', ''):
        assert naming.split_name(name) is None


@pytest.mark.parametrize(('entities', 'expected'), CASES, ids=lambda value: str(value)[-60:])
def test_a_derivative_leads_back_to_its_image(entities, expected):
    stem = FUNC_STEM if 'task' in entities else ANAT_STEM
    suffix = 'bold' if 'task' in entities else 'T1w'
    assert naming.source_path(f'bids::{expected}') == stem
    assert naming.source_path(f'bids:raw:{stem}_{suffix}.nii.gz') == stem
    assert naming.source_stem(expected) == stem.rsplit('/', 1)[1]


def test_an_image_in_chunks_and_its_maps_belong_together():
    image = naming.source_path('bids:raw:sub-1/anat/sub-1_chunk-2_T1w.nii.gz')
    entities = {'sub': '1', 'chunk': '2', 'space': S, 'res': '1', 'model': 'm', 'desc': 'd'}
    path = naming.derivative_path({**entities, 'suffix': 'saliency'})
    # the name of the map has the space before the chunk
    assert path.name.index('space-') < path.name.index('chunk-')
    assert naming.source_path(path) == image


def test_side_files_and_names_of_group_maps():
    assert naming.side_file(PurePosixPath('a/sub-1_T1w.nii.gz')) == PurePosixPath(
        'a/sub-1_T1w.json'
    )
    entities = {'desc': 'gradcam', 'sub': '1', 'model': 'm', 'space': S, 'res': '1'}
    assert naming.group_map_name('20to30', entities, 'saliency') == (
        f'group_age-20to30_space-{S}_res-1_model-m_desc-gradcam_saliency'
    )
    with pytest.raises(WorkflowError, match='not a BIDS file name'):
        naming.source_stem('group_accuracy.tsv')
    assert naming.source_path('bids:raw:odd/name.nii') == 'odd/name.nii'
