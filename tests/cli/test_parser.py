"""Command line: every spelling, every problem at once, and settings that survive a file."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bids_brainage import __version__
from bids_brainage.cli.check import ListModels, parse_memory
from bids_brainage.cli.parser import LEVELS, build_parser
from bids_brainage.cli.request import parse
from bids_brainage.cli.resources import allowed_cpus, visible_memory_gb
from bids_brainage.config import Config
from bids_brainage.errors import MissingExecutableError
from bids_brainage.workflows.plugin import PLUGINS, require_scheduler

HELP_LIMIT_SECONDS = 0.5  # CPU time, interpreter start included


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / 'bids').mkdir()
    (tmp_path / 'models').mkdir()
    (tmp_path / 'atlas.nii.gz').write_bytes(b'')
    (tmp_path / 'filter.json').write_text('{"t1w": {"acquisition": null, "run": "1"}}')
    (tmp_path / 'plugin.yml').write_text('plugin: SLURM\nplugin_args: {sbatch_args: "-c 2"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _parse(*options: str, environ: dict[str, str] | None = None) -> Config:
    config = parse(['bids', 'out', 'participant', *options], environ or {})
    assert isinstance(config, Config)
    return config


def _problems(capsys, *options: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        _parse(*options, environ=environ)
    assert caught.value.code == 2
    return re.findall(r'^  \* (.*)$', capsys.readouterr().err, flags=re.MULTILINE)


def _value(config: Config, dotted: str):
    section, name = dotted.split('.')
    return getattr(getattr(config, section), name)


PARTICIPANTS = ('execution.participant_label', ('01', '02'))
SESSIONS = ('execution.session_label', ('a',))
FILTERS = ('execution.bids_filters', {'t1w': {'acquisition': [None], 'run': ['1']}})
SPELLINGS = [
    *[
        (f'{name} sub-01 02 01', *PARTICIPANTS)
        for name in ('--participant-label', '--participant_label')
    ],
    *[
        (f'{name} ses-a', *SESSIONS)
        for name in ('--session-label', '--session_label', '--session-id', '--session_id')
    ],
    ('--bids-filter-file filter.json', *FILTERS),
    ('--bids_filter_file filter.json', *FILTERS),
    ('--bids-database-dir db', 'execution.bids_database_dir', 'db'),
    *[
        (name, 'execution.skip_bids_validation', True)
        for name in ('--skip-bids-validation', '--skip_bids_validation', '--skip_bids_validator')
    ],
    *[
        (f'{name} task-rest nback', 'execution.task_id', ('rest', 'nback'))
        for name in ('-t', '--task-id', '--task_id')
    ],
    ('-d fmriprep=models', 'execution.derivatives', {'fmriprep': 'models'}),
    ('--derivatives fmriprep-25.2=models', 'execution.derivatives', {'fmriprep-25.2': 'models'}),
    ('-d aicbv=models', 'execution.derivatives', {'aicbv': 'models'}),
    ('-d cat12=models', 'execution.derivatives', {'cat12': 'models'}),
    ('-d freesurfer-7=models', 'execution.derivatives', {'freesurfer-7': 'models'}),
    ('-d dlmuse=filter.json', 'execution.derivatives', {'dlmuse': 'filter.json'}),
    ('--anat-only', 'workflow.anat_only', True),
    (
        '--output-spaces T1w MNI152NLin6Asym:res-2 T1w',
        'workflow.output_spaces',
        ('T1w', 'MNI152NLin6Asym:res-2'),
    ),
    ('--connectivity', 'workflow.connectivity', True),
    ('--harmonise', 'workflow.harmonise', 'all'),
    ('--harmonise group=control', 'workflow.harmonise', 'group=control'),
    ('--aicbv-weights filter.json', 'workflow.aicbv_weights', 'filter.json'),
    ('--consensus', 'workflow.consensus', True),
    ('--synthetic-slices', 'workflow.synthetic_slices', True),
    ('--atlas dosenbach2010', 'workflow.atlas', 'dosenbach2010'),
    ('--atlas ./atlas.nii.gz', 'workflow.atlas', 'atlas.nii.gz'),
    ('--atlas ./atlas.nii.gz --atlas-labels filter.json', 'workflow.atlas_labels', 'filter.json'),
    ('--dry-run', 'execution.dry_run', True),
    ('--models a.b c.d', 'workflow.models', ('a.b', 'c.d')),
    ('--model-dir models', 'workflow.model_dir', 'models'),
    ('--saliency gradcam attention', 'workflow.saliency', ('gradcam', 'attention')),
    ('--saliency none', 'workflow.saliency', ()),
    ('--age-column scan_age', 'workflow.age_column', 'scan_age'),
    *[
        (f'{name} 3', 'nipype.nprocs', 3)
        for name in ('--nprocs', '--n-procs', '--n_procs', '--nthreads', '--n-cpus', '--n_cpus')
    ],
    ('--omp-nthreads 5', 'nipype.omp_nthreads', 5),
    *[(f'{name} 4096', 'nipype.memory_gb', 4.0) for name in ('--mem', '--mem-mb', '--mem_mb')],
    ('--mem 4G', 'nipype.memory_gb', 4.0),
    *[(f'{name} 4', 'nipype.memory_gb', 4.0) for name in ('--mem-gb', '--mem_gb')],
    ('--use-plugin plugin.yml', 'nipype.plugin', 'SLURM'),
    ('--nipype-plugin-file plugin.yml', 'nipype.plugin_args', {'sbatch_args': '-c 2'}),
    ('--device cuda:1', 'nipype.device', 'cuda:1'),
    ('--random-seed 7', 'seeds.random_seed', 7),
    ('--sloppy', 'workflow.sloppy', True),
    ('--reports-only', 'execution.reports_only', True),
    ('--aggregate-session-reports 2', 'execution.aggregate_session_reports', 2),
    ('-w w', 'execution.work_dir', 'w'),
    ('--work-dir w', 'execution.work_dir', 'w'),
    ('--clean-workdir', 'execution.clean_workdir', True),
    ('--write-graph', 'execution.write_graph', True),
    ('--stop-on-first-crash', 'nipype.stop_on_first_crash', True),
    ('--offline', 'execution.offline', True),
    ('--notrack', 'execution.offline', False),
    *[
        (f'{name} minimal', 'execution.level', 'minimal')
        for name in ('--level', '--level-of-output')
    ],
    ('--keep-work', 'execution.keep_work', True),
    ('--boilerplate-only', 'execution.boilerplate_only', True),
    ('--boilerplate_only', 'execution.boilerplate_only', True),
    ('--md-only-boilerplate', 'execution.md_only_boilerplate', True),
    ('--resource-monitor', 'execution.resource_monitor', True),
    ('--debug', 'execution.log_level', 10),
    ('--debug', 'execution.keep_work', True),
    ('-v', 'execution.log_level', 20),
    ('--verbose --verbose', 'execution.log_level', 15),
    ('-vvvv', 'execution.log_level', 10),
]


@pytest.mark.parametrize(('text', 'field', 'expected'), SPELLINGS, ids=lambda value: str(value))
def test_every_spelling(folders, text, field, expected):
    value = _value(_parse(*text.split()), field)
    if isinstance(value, dict) and field == 'execution.derivatives':
        expected = {name: str(folders / path) for name, path in expected.items()}
    if isinstance(value, str) and value.endswith('.nii.gz'):
        expected = str(folders / expected)
    assert value == (folders / expected if isinstance(value, Path) else expected)


def test_no_spelling_is_untested():
    words = {word for text, *_ in SPELLINGS for word in text.split()}
    tested = {word for word in words if word.startswith('-')}
    tested |= {'-h', '--help', '--version', '--list-models', '--config-file', '-v'}
    others = argparse.ArgumentParser(add_help=False)  # options of other levels: tests of their own
    for level in LEVELS:
        if level.name != 'participant':
            level.add_options(others)
    assert _names(build_parser()) - _names(others) - tested == set()


def _names(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def test_defaults(folders):
    config = _parse()
    assert config.execution.bids_dir == folders / 'bids'
    assert config.execution.work_dir == folders / 'work'
    assert config.execution.log_level == 25
    assert (config.workflow.models, config.workflow.saliency) == ((), None)
    assert config.nipype.nprocs == allowed_cpus()
    assert 1 <= config.nipype.omp_nthreads <= 8
    assert config.nipype.plugin == 'MultiProc'
    assert config.seeds.random_seed == 0
    assert re.fullmatch(r'\d{8}-\d{6}_[0-9a-f-]{36}', config.execution.run_id)
    assert _parse('--nprocs', '20').nipype.omp_nthreads == 8
    assert _parse('--nprocs', '4').nipype.omp_nthreads == 3
    assert _parse('--nprocs', '1').nipype.omp_nthreads == 1


def test_environment(folders):
    environ = {
        'BIDS_BRAINAGE_MODEL_DIR': 'models',
        'BIDS_BRAINAGE_OFFLINE': '1',
        'BIDS_BRAINAGE_CONTAINER_TAG': 'bids/brainage:1',
        'APPTAINER_CONTAINER': 'x.sif',
    }
    config = _parse(environ=environ)
    assert config.workflow.model_dir == folders / 'models'
    assert config.execution.offline is True
    assert config.environment.container_type == 'apptainer'
    assert config.environment.container_tag == 'bids/brainage:1'
    inside = _parse(environ={'IS_DOCKER_8395080871': '1'})  # Podman has no /.dockerenv
    assert inside.environment.container_type == 'docker'
    assert _parse(environ={'BIDS_BRAINAGE_OFFLINE': '0'}).execution.offline is False


def test_all_problems_are_told_together(folders, capsys):
    found = _problems(
        capsys,
        *('--participant-label', 's_1', '--nprocs', '0', '--omp-nthreads', 'two'),
        *('--mem', 'lots', '--mem-gb', '3', '--device', 'gpu', '--random-seed', '-1'),
        *('--saliency', 'none', 'gradcam', '--models', 'a.b', 'ab', '--model-dir', 'nowhere'),
        *('--use-plugin', 'nowhere.yml', '--bids-filter-file', 'nowhere.json'),
        *('--aggregate-session-reports', '0', '--config-file', 'nowhere.toml'),
        *('--task-id', 'n_1', '--atlas', 'nowhere.nii.gz', '--atlas-labels', 'nowhere.tsv'),
        *('--derivatives', 'ants=models', 'fmriprep=nowhere', 'fmriprep-2=models'),
        environ={},
    )
    told = ' '.join(found)
    assert len(found) == 20
    words = 's_1 nprocs omp-nthreads --mem --mem-gb device random-seed saliency same nowhere.yml '
    words += 'nowhere.json aggregate-session-reports nowhere.toml model-dir task-id atlas-labels '
    words += 'nowhere.nii.gz nowhere.tsv ants twice'
    for word in words.split():
        assert word in told


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['bids', 'bids', 'participant'], r'input dataset itself.*bids/derivatives/bids_brainage'),
        (['bids', 'o', 'participant', '-w', 'bids/w'], r'inside the input dataset.*use for ex'),
        (['bids', 'o', 'participant', '-w', 'o'], r'is the output folder.*o/\.work'),
        (['nowhere', 'o', 'participant'], 'nowhere is not a folder'),
        (['bids', 'filter.json', 'participant'], 'is a file'),
        (['bids', 'o', 'everything'], 'invalid choice'),
        (['bids', 'o'], 'analysis_level'),
        (['bids', 'o', 'participant', '--particip', '1'], 'unrecognized'),
        (['bids', 'o', 'participant', '--task', '1'], 'unrecognized'),
    ],
)
def test_refused(folders, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        parse(arguments, {})
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err, flags=re.DOTALL)


def test_work_dir_moves_out_of_the_input(folders, capsys, monkeypatch):
    monkeypatch.chdir(folders / 'bids')
    config = parse([str(folders / 'bids'), str(folders / 'out'), 'participant'], {})
    assert config.execution.work_dir == folders / 'out' / '.work'
    described = folders / 'bids' / 'dataset_description.json'
    described.write_text('{"Name": "n", "BIDSVersion": "1.10.0"}')
    with pytest.raises(SystemExit):
        parse([str(folders / 'bids'), 'derivatives/x', 'participant'], {})
    assert '--work-dir' in capsys.readouterr().err


def test_plugin_file_problems_and_its_process_count(folders, capsys):
    (folders / 'plugin.yml').write_text('plugin_args: 3\n')
    assert 'expected "plugin: NAME"' in _problems(capsys, '--use-plugin', 'plugin.yml')[0]
    (folders / 'plugin.yml').write_text('plugin: [}\n')
    assert 'YAML' in _problems(capsys, '--use-plugin', 'plugin.yml')[0]
    text = 'plugin: MultiProc\nplugin_args: {n_procs: 6, memory_gb: 3}\n'
    (folders / 'plugin.yml').write_text(text)
    config = _parse('--use-plugin', 'plugin.yml')
    assert (config.nipype.nprocs, config.nipype.memory_gb) == (6, 3.0)
    assert _parse('--use-plugin', 'plugin.yml', '--nprocs', '2').nipype.nprocs == 2


def test_plugin_is_known_in_any_case_and_waits_for_its_jobs(folders, capsys):
    plugins = importlib.import_module('nipype.pipeline.plugins')
    assert {name for name in PLUGINS if not hasattr(plugins, f'{name}Plugin')} == set()
    (folders / 'plugin.yml').write_text('plugin: Slurm\n')
    assert _parse('--use-plugin', 'plugin.yml').nipype.plugin == 'SLURM'
    (folders / 'plugin.yml').write_text('plugin: slurmgraph\n')
    assert 'returns before its jobs' in _problems(capsys, '--use-plugin', 'plugin.yml')[0]
    (folders / 'plugin.yml').write_text('plugin: Dask\n')
    told = _problems(capsys, '--use-plugin', 'plugin.yml')[0]
    assert 'plugin Dask is not known' in told
    assert 'SLURM' in told


def test_training_makes_the_folder_of_its_model(folders, capsys):
    arguments = ('--arch', 'vgg8', '--bundle-name', 'x', '--model-dir', 'new')
    config = parse([str(folders / 'bids'), str(folders / 'out'), 'train', *arguments], {})
    assert config.workflow.model_dir == folders / 'new'
    assert 'new is not a folder' in _problems(capsys, '--model-dir', 'new')[0]


def test_plugin_needs_the_programs_of_its_scheduler(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    require_scheduler('MultiProc')
    with pytest.raises(MissingExecutableError, match='needs sbatch, squeue, scancel,') as caught:
        require_scheduler('SLURM')
    assert caught.value.exit_code == 127


def test_folder_gives_derivatives_their_name(folders):
    (folders / 'fmriprep').mkdir()
    config = _parse('--derivatives', 'fmriprep')
    assert config.execution.derivatives == {'fmriprep': str(folders / 'fmriprep')}


def test_an_output_space_is_a_label_with_modifiers(folders, capsys):
    told = _problems(capsys, '--output-spaces', 'MNI152NLin6Asym:2', 'T1w')
    assert len(told) == 1
    assert "'MNI152NLin6Asym:2' is not a space; expected a TemplateFlow label" in told[0]


def test_names_of_atlases_take_no_table(folders, capsys):
    (folders / 'table.tsv').write_text('index\tname\n1\tA\n')
    told = _problems(capsys, '--atlas', 'power2011', '--atlas-labels', 'table.tsv')
    assert 'only a label image' in told[0]


def test_earlier_run_is_reused_and_the_command_line_wins(folders, capsys):
    first = _parse(
        *('--participant-label', '01', '--nprocs', '3', '--mem-gb', '2', '--sloppy'),
        *('--saliency', 'none', '--bids-filter-file', 'filter.json', '--age-column', 'years'),
        *('--derivatives', 'fmriprep=models', '--atlas', './atlas.nii.gz', '--anat-only'),
        *('--atlas-labels', 'plugin.yml', '--task-id', 'rest'),
        *('--aicbv-weights', 'filter.json', '--consensus'),
    )
    (folders / 'run.toml').write_text(first.to_toml())
    arguments = ['bids', 'other', 'participant', '--config-file', 'run.toml']
    again = parse(arguments, {})
    assert again.execution.output_dir == folders / 'other'
    assert again.execution.run_id != first.execution.run_id
    assert again.workflow == first.workflow
    assert again.nipype == first.nipype
    assert again.execution.bids_filters == first.execution.bids_filters
    assert again.execution.derivatives == first.execution.derivatives
    assert again.execution.task_id == ('rest',)
    (folders / 'plain.toml').write_text(_parse().to_toml())
    assert parse([*arguments[:-1], 'plain.toml'], {}).execution.derivatives == {}
    changed = parse([*arguments, '--mem', '512', '--participant-label', '02'], {})
    assert changed.nipype.memory_gb == 0.5
    assert changed.execution.participant_label == ('02',)
    (folders / 'own.toml').write_text(
        'nprocs = 2\n[workflow]\nage-column = "years"\ncolour = 1\nsloppy = "yes"\nmodels = 3\n'
        '[execution]\nbids_filters = \'{"pet": {}}\'\nlist_models = true\n'
    )
    told = ' '.join(_problems(capsys, '--config-file', 'own.toml'))
    for word in ('[section]', 'colour', 'sloppy', 'models', 'pet', 'list_models'):
        assert word in told


def test_freesurfer_within_fmriprep_is_found(folders):
    inside = folders / 'fmriprep' / 'sourcedata' / 'freesurfer'
    inside.mkdir(parents=True)
    found = _parse('--derivatives', 'fmriprep').execution.derivatives
    assert found == {'fmriprep': str(folders / 'fmriprep'), 'freesurfer': str(inside)}
    given = ('--derivatives', 'fmriprep', 'freesurfer=models')
    assert _parse(*given).execution.derivatives['freesurfer'] == str(folders / 'models')


@pytest.mark.parametrize('text', ['derivatives = "{}"', 'derivatives = \'{"aicbv": "models"}\''])
def test_derivatives_of_an_earlier_run_are_read_back(folders, text):
    (folders / 'run.toml').write_text(f'[execution]\n{text}\n')
    found = _parse('--config-file', 'run.toml').execution.derivatives
    assert found == ({'aicbv': str(folders / 'models')} if 'aicbv' in text else {})


def test_earlier_run_without_any_option_is_reused(folders):
    first = _parse()
    (folders / 'run.toml').write_text(first.to_toml())
    assert _parse('--config-file', 'run.toml').workflow == first.workflow


@pytest.mark.parametrize(
    ('level', 'options', 'told'),
    [
        ('participant', '--group-column sex', '--group-column is an option of the group level'),
        ('participant', '--arch vgg8', '--arch is an option of the train level'),
        ('participant', '--covariates a b', 'a run of the participant level: leave it out'),
        ('group', '--consensus', '--consensus is an option of the participant level'),
        ('group', '-t rest', '--task-id is an option of the participant level'),
        ('group', '--folds 3', '--folds is an option of the train level'),
        ('train', '--correlate x', '--correlate is an option of the group level'),
        ('train', '--anat-only', '--anat-only is an option of the participant level'),
    ],
)
def test_options_of_another_level_are_refused(folders, capsys, level, options, told):
    with pytest.raises(SystemExit) as caught:
        parse(['bids', 'out', level, *options.split()], {})
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_options_of_several_levels_and_files_are_accepted(folders):
    train = ['--arch', 'vgg8', '--bundle-name', 'x', '--reference-group', 'group=control']
    assert parse(['bids', 'out', 'train', *train], {}).group.reference_group == 'group=control'
    (folders / 'run.toml').write_text('[group]\ngroup_column = "sex"\n')
    assert _parse('--config-file', 'run.toml').group.group_column == 'sex'


@pytest.mark.parametrize('text', ['01,02', '01;02', 'sub-01,02'])
def test_labels_are_separated_by_blanks(folders, capsys, text):
    (told,) = _problems(capsys, '--participant-label', text)
    assert 'labels are separated by blanks: 01 02.' in told


@pytest.mark.parametrize(('option', 'text'), [('--mem', '1'), ('--mem', '8'), ('--mem-gb', '0.1')])
def test_memory_in_the_wrong_unit_is_refused(folders, capsys, option, text):
    (told,) = _problems(capsys, option, text)
    assert f'{option}: {text} is' in told
    assert 'one step takes up to 2 GB' in told


def test_connectivity_without_functional_images_is_refused(folders, capsys):
    assert 'contradict' in _problems(capsys, '--connectivity', '--anat-only')[0]


@pytest.mark.parametrize('options', [['--nprocs', '0'], ['--colour', 'red'], []])
def test_what_is_wrong_stands_under_one_line_of_usage(folders, capsys, options):
    arguments = ['bids', 'out', 'participant', *options] if options else ['bids']
    with pytest.raises(SystemExit):
        parse(arguments, {})
    lines = capsys.readouterr().err.splitlines()
    usage = 'usage: bids_brainage bids_dir output_dir {participant,group,train}'
    assert lines[0].startswith(usage)
    assert len(lines) <= 3
    assert 'error' in lines[1]


def test_folder_that_is_no_dataset_is_told_first(folders, capsys, monkeypatch):
    monkeypatch.chdir(folders / 'bids')
    with pytest.raises(SystemExit):
        parse(['.', 'out', 'participant'], {})
    told = capsys.readouterr().err
    assert 'dataset_description.json is missing' in told
    assert 'work folder' not in told


def test_list_models_needs_no_positionals(folders, capsys):
    assert parse(['--list-models'], {}) == ListModels(None)
    request = parse(['--list-models', 'a.b', 'c.d', '--model-dir', 'models', '--offline'], {})
    assert request == ListModels(folders / 'models', ('a.b', 'c.d'))
    with pytest.raises(SystemExit):
        parse(['--list-models', '--model-dir', 'nowhere'], {})


@pytest.mark.parametrize(
    ('text', 'gb'),
    [
        ('1024', 1.0),
        ('512K', 0.5 / 1024),
        ('2048m', 2.0),
        ('1.5G', 1.5),
        ('8 GB', 8.0),
        ('1T', 1024.0),
    ],
)
def test_memory_texts(text, gb):
    assert parse_memory(text) == gb


@pytest.mark.parametrize('text', ['', '0', '-1', '4X', '4GG', 'nan'])
def test_wrong_memory_texts(text):
    with pytest.raises(ValueError, match=f'^{re.escape(text)}$'):
        parse_memory(text)


def test_help_imports_little_and_answers_at_once():
    code = (
        'import json, resource, sys\n'
        'from bids_brainage.cli.request import parse\n'
        'try:\n    parse([sys.argv[1]])\n'
        'except SystemExit as end:\n    status = end.code\n'
        'usage = resource.getrusage(resource.RUSAGE_SELF)\n'
        'heavy = [m for m in ("torch", "nipype", "numpy", "bids", "pandas") if m in sys.modules]\n'
        'print(json.dumps([status, usage.ru_utime + usage.ru_stime, heavy]), file=sys.stderr)\n'
    )
    for option, expected in (('--help', 'participant'), ('--version', __version__)):
        done = subprocess.run(
            [sys.executable, '-c', code, option], capture_output=True, text=True, check=True
        )
        status, seconds, heavy = json.loads(done.stderr)
        assert status == 0
        assert expected in done.stdout
        assert heavy == []
        assert seconds < HELP_LIMIT_SECONDS


def _fake_root(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_resources_of_nested_control_groups(tmp_path):
    root = _fake_root(
        tmp_path,
        {
            'proc/meminfo': 'MemTotal: 99999999 kB\nMemAvailable: 16777216 kB\n',
            'proc/self/cgroup': '0::/slurm/job_1/step_0\n',
            'sys/fs/cgroup/slurm/job_1/step_0/memory.max': 'max\n',
            'sys/fs/cgroup/slurm/job_1/memory.max': f'{3 * 2**30}\n',
            'sys/fs/cgroup/slurm/job_1/cpu.max': '150000 100000\n',
        },
    )
    assert visible_memory_gb(root) == 3.0
    assert allowed_cpus(root) == 1


def test_resources_of_the_older_control_groups_and_without(tmp_path):
    old = _fake_root(
        tmp_path / 'old',
        {
            'proc/self/cgroup': '4:memory:/\n3:cpu,cpuacct:/\n',
            'sys/fs/cgroup/memory/memory.limit_in_bytes': f'{2**30}\n',
            'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
            'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
        },
    )
    assert visible_memory_gb(old) == 1.0
    assert allowed_cpus(old) >= 1
    assert visible_memory_gb(tmp_path / 'none') > 0


def test_settings_hold_the_command_line_as_a_shell_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my data').mkdir()
    config = parse(['my data', 'out', 'participant', '--nprocs', '1'], {})
    command = "bids_brainage 'my data' out participant --nprocs 1"
    assert config.environment.command == command
    assert tomllib.loads(config.to_toml())['environment']['command'] == command


def test_level_is_one_of_three_and_further_spaces_need_the_full_one(folders, capsys):
    (told,) = _problems(capsys, '--level', 'tiny')
    assert 'expected minimal, standard, full, found' in told
    (told,) = _problems(capsys, '--level', 'standard', '--output-spaces', 'T1w')
    assert 'only --level full keeps' in told


@pytest.mark.parametrize('other', ['--reports-only', '--dry-run'])
def test_methods_text_alone_excludes_other_runs(folders, capsys, other):
    (told,) = _problems(capsys, '--boilerplate-only', other)
    assert f'{other}' in told
    assert 'contradict each other' in told


def test_options_of_other_programs_are_refused_with_the_reason(folders, capsys):
    told = _problems(
        capsys,
        '--low-mem',
        '--fs_license_file',
        'licence.txt',
        '--fs-no-reconall',
        '--nprocs',
        '0',
    )
    assert [text.split(' is not needed here, because ')[0] for text in told[:3]] == [
        '--low-mem', '--fs-license-file', '--fs-no-reconall',
    ]  # fmt: skip
    assert '--mem says how much' in told[0]
    assert '--nprocs' in told[3]
    (told,) = _problems(capsys, '--fs-license-file=licence.txt')
    assert 'FreeSurfer is not used' in told


def test_help_names_the_default_model_and_a_value_once(capsys):
    with pytest.raises(SystemExit):
        parse(['--help'], {})
    told = ' '.join(capsys.readouterr().out.split())
    assert '(default: volumes.adults)' in told
    assert '--participant-label, --participant_label LABEL [LABEL ...]' in told
