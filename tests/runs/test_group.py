"""The group level from the command line: options, golden values on disk, page in a browser."""

from __future__ import annotations

import json
import re
import shutil

import golden as g
import numpy as np
import pytest
from browser_probe import ask, needs_browser
from group_people import write_people

from bids_brainage.cli.main import main
from bids_brainage.cli.request import parse
from bids_brainage.config import Config
from bids_brainage.dataset.phenotype import acquisition_days, parse_days, phenotype_columns
from bids_brainage.errors import MissingInputError, NothingSelectedError, OptionError
from bids_brainage.outputs.collect import read_predictions
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.runs.group import run_group, select
from bids_brainage.tsv import read_tsv


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Raw tables and derivatives of the golden people: dx, mmse, site, dates of scans."""
    root = tmp_path_factory.mktemp('group')
    bids, out = root / 'bids', root / 'out'
    (bids / 'phenotype').mkdir(parents=True)
    write_people(out)
    lines = ['participant_id\tage\tsex\tdx\tsite']
    lines += [f'sub-{k:03d}\t50\tM\t{"AD" if k % 3 == 0 else "CU"}\t{k % 2}' for k in range(60)]
    (bids / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    lines = ['participant_id\tmmse'] + [f'sub-{k:03d}\t{float(g.mmse[k])!r}' for k in range(60)]
    (bids / 'phenotype' / 'tests.tsv').write_text('\n'.join(lines) + '\n')
    return bids, out


def run(dataset, *options):
    bids, out = dataset
    config = parse([str(bids), str(out), 'group', '-w', str(out / '.work'), *options], {})
    assert isinstance(config, Config)
    return run_group(config)


def row_of(out, table, **cells):
    for row in read_tsv(out / f'group_{table}.tsv'):
        if all(row[k] == v for k, v in cells.items()):
            return row
    raise AssertionError(cells)


def test_golden_values_through_the_command_line(dataset):
    options = '--retest-sessions 1 2 --group-column dx --correlate mmse --reference-group dx=CU'
    assert run(dataset, *options.split()) == 0
    out = dataset[1]
    row = row_of(
        out, 'accuracy', model='net.a', subset='session', level='ses-1', corrected='false'
    )
    golden = {'mae': 2.861399, 'me': -0.578033, 'rmse': 3.427579, 'r': 0.996522, 'mmae': 4.234580}
    for key, value in golden.items():
        assert float(row[key]) == pytest.approx(value, abs=g.DIGITS)
        assert float(row[f'{key}_low']) < value
    row = row_of(out, 'longitudinal', model='net.a', row='summary')
    for key, value in {'mde': -0.250344, 'made': 1.334366, 'mmade': 1.546720}.items():
        assert float(row[key]) == pytest.approx(value, abs=g.DIGITS)
    row = row_of(out, 'reliability', model='net.a', session_set='sessions')
    for key, value in {'sigma_scan': 0.364956, 'mu_d': -0.116893, 'sigma_d': 0.570879}.items():
        assert float(row[key]) == pytest.approx(value, abs=g.DIGITS)
    row = row_of(
        out, 'differences', model='net.a', column='mmse', level_a='all', corrected='false'
    )
    assert float(row['p']) == pytest.approx(6.325e-05, abs=6e-9)
    sites = [r for r in read_tsv(out / 'group_accuracy.tsv') if r['subset'] == 'site']
    assert {r['level'] for r in sites} == {'0', '1'}
    side = json.loads((out / 'group_accuracy.json').read_text())
    assert side['Analysis']['calibration']['net.a']['n_reference'] == 40
    assert 'ses-1 and ses-2' in side['Analysis']['test_retest']


def test_the_smallest_decade_that_counts_can_be_chosen(dataset):
    options = '--retest-sessions 1 2 --min-bin-n 1'
    assert run(dataset, *options.split()) == 0
    cells = {'model': 'net.a', 'subset': 'session', 'level': 'ses-1', 'corrected': 'false'}
    row = row_of(dataset[1], 'accuracy', **cells)
    assert float(row['mmae']) == pytest.approx(6.195272, abs=g.DIGITS)
    assert row['mmae'] == row['mmae_all'] and row['mmae_bin'] == '90+'
    row = row_of(dataset[1], 'longitudinal', model='net.a', row='summary')
    assert float(row['mmade']) == pytest.approx(1.548306, abs=g.DIGITS)


def test_the_same_options_give_the_same_files(dataset):
    run(dataset)
    out = dataset[1]
    before = {p.name: p.stat().st_mtime_ns for p in out.glob('group*')}
    assert len(before) == 15
    run(dataset)
    assert before == {p.name: p.stat().st_mtime_ns for p in out.glob('group*')}


def test_selection(dataset):
    run(dataset, '--participant-label', '001', 'sub-002', '--models', 'net.a')
    assert len(read_tsv(dataset[1] / 'group_brainage.tsv')) == 6
    table = read_predictions(dataset[1]).table
    assert set(select(table, sessions=['3'])['session_id']) == {'ses-3'}
    with pytest.raises(NothingSelectedError, match='60 participants'):
        select(table, participants=['nobody'])


def test_a_dry_run_writes_nothing(dataset, tmp_path):
    bids, out = dataset
    copy = tmp_path / 'out'
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns('group*'))
    assert run((bids, copy), '--dry-run') == 0
    assert not list(copy.glob('group*'))


def test_an_unreadable_table_costs_only_its_rows(dataset, tmp_path):
    bids, out = dataset
    copy = tmp_path / 'out'
    shutil.copytree(out, copy)
    (copy / 'sub-005/ses-1/anat/sub-005_ses-1_brainage.tsv').write_bytes(b'\x00\xff')
    assert run((bids, copy)) == 1
    row = row_of(copy, 'exclusions', participant_id='sub-005')
    assert 'cannot be read' in row['reason']
    assert row_of(copy, 'accuracy', subset='all', unit='scan', model='net.a')['n'] == '179'


def test_what_the_user_must_correct(dataset, tmp_path, capsys):
    bids, _ = dataset
    with pytest.raises(OptionError, match=r'Column diagnosis .*columns found: .*dx'):
        run(dataset, '--group-column', 'diagnosis')
    with pytest.raises(OptionError, match='nobody has this value; column dx holds AD, CU'):
        run(dataset, '--reference-group', 'dx=HC')
    with pytest.raises(MissingInputError, match='participant level first'):
        run((bids, tmp_path))
    options = ['--retest-sessions', '1', '--retest-max-days', '-3', '--reference-group', 'dx']
    with pytest.raises(SystemExit):
        parse([str(bids), str(tmp_path), 'group', *options], {})
    problems = re.findall(r'^  \* (--[a-z-]+)', capsys.readouterr().err, flags=re.MULTILINE)
    assert set(problems) == {'--reference-group', '--retest-max-days', '--retest-sessions'}


def test_a_wrong_output_folder_is_not_made(dataset, tmp_path, capsys):
    for name, text in (('none', 'does not exist'), ('empty', 'expected folders sub-*')):
        out = tmp_path / name
        if name == 'empty':
            out.mkdir()
        assert main([str(dataset[0]), str(out), 'group', '-w', str(tmp_path / 'w')]) == 66
        assert text in capsys.readouterr().err
        assert not list(tmp_path.glob(f'{name}/*'))
    assert not (tmp_path / 'none').exists()


def test_words_cannot_be_correlated(dataset):
    with pytest.raises(OptionError, match=r"--correlate dx: expected numbers, found '(AD|CU)'"):
        run(dataset, '--correlate', 'dx')


def test_the_dataset_may_have_columns_named_as_ours(dataset, tmp_path):
    bids = tmp_path / 'bids'
    bids.mkdir()
    lines = ['participant_id\tsource'] + [f'sub-{k:03d}\t{"ab"[k % 2]}' for k in range(60)]
    (bids / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    options = ['--group-column', 'source', '--reference-group', 'source=a']
    assert run((bids, dataset[1]), *options) == 0
    row = row_of(dataset[1], 'differences', test='games_howell', model='net.a')
    assert (row['column'], row['level_a'], row['n_a']) == ('source (dataset)', 'a', '30')
    assert row_of(dataset[1], 'brainage')['source'].startswith('bids:raw:')


def test_the_terminal_says_what_was_found_and_written(dataset, capsys):
    bids, out = dataset
    places = [str(bids), str(out), 'group', '-w', str(out / '.work')]
    options = ['--session-label', '1', '--group-column', 'site', '--participant-label', '000']
    assert main([*places, *options]) == 0
    printed = capsys.readouterr()
    head, rule, *rows = printed.out.strip().splitlines()
    assert head.split()[:3] == ['model', 'images', 'people'] and set(rule) == {'-', ' '}
    assert [row.split()[:3] for row in rows] == [['net.a', '1', '1'], ['net.b', '1', '1']]
    lines = [line.split('  ', 1)[1] for line in printed.err.splitlines()]
    assert 'net.a: no comparison of site: levels of site: 1; 2 to 12 can be compared' in lines
    assert 'done      people: 1, models: 2' in lines
    assert lines[-1] == f'report    {out / "group.html"}'


def test_no_usable_prediction_is_a_failure_with_reasons(dataset, tmp_path, capsys):
    home = tmp_path / 'sub-1' / 'anat'
    row = brainage_row(participant_id='sub-1', source='bids:raw:x', model='net.a', status='failed')
    write_brainage(home / 'sub-1_brainage.tsv', [row])
    places = [str(dataset[0]), str(tmp_path), 'group', '-w', str(tmp_path / '.work')]
    assert main(places) == 65
    error = capsys.readouterr().err
    assert 'left out  1 of all: status failed' in error
    assert 'No prediction can be used' in error
    assert row_of(tmp_path, 'exclusions')['reason'] == 'status failed'


def test_settings_survive_the_file(dataset):
    bids, out = dataset
    retest = ['--retest-sessions', 'a', 'ses-b', '--retest-max-days', '30.5']
    options = [*retest, '--covariates', 'iq', '--min-bin-n', '3']
    config = parse([str(bids), str(out), 'group', '-w', str(out / '.work'), *options], {})
    assert config.group.retest_sessions == ('ses-a', 'ses-b')
    assert config.group.covariates == ('iq',) and config.group.min_bin_n == 3
    (out / 'run.toml').write_text(config.to_toml())
    again = ['--config-file', str(out / 'run.toml')]
    assert parse([str(bids), str(out), 'group', *again], {}).group == config.group


def test_phenotypes_by_person_and_session(tmp_path):
    (tmp_path / 'participants.tsv').write_text('participant_id\tdx\nsub-1\tCU\nsub-2\tn/a\n')
    (tmp_path / 'sub-1').mkdir()
    (tmp_path / 'sub-1' / 'sub-1_sessions.tsv').write_text(
        'session_id\tmmse\tacq_time\nses-a\t29\t2020-01-01T10:00:00\nb\t27\tn/a\n'
    )
    found = phenotype_columns(tmp_path, ['dx', 'mmse'], ['site'])
    assert found == {
        'dx': {('sub-1', None): 'CU'},
        'mmse': {('sub-1', 'ses-a'): '29', ('sub-1', 'ses-b'): '27'},
    }


def test_dates_of_scans(tmp_path):
    folder = tmp_path / 'sub-1' / 'ses-a'
    folder.mkdir(parents=True)
    (folder / 'sub-1_ses-a_scans.tsv').write_text(
        'filename\tacq_time\nanat/x_T1w.nii.gz\t2020-01-03T12:00:00\nanat/y.nii.gz\tlater\n'
    )
    (tmp_path / 'sub-1' / 'sub-1_sessions.tsv').write_text(
        'session_id\tacq_time\nses-b\t2020-01-04T12:00:00Z\n'
    )
    uris = [
        'bids:raw:sub-1/ses-a/anat/x_T1w.nii.gz',
        'bids:raw:sub-1/ses-a/anat/y.nii.gz',
        'bids:raw:sub-1/ses-b/anat/z.nii.gz',
        'bids:raw:sub-2/anat/z.nii.gz',
    ]
    days = acquisition_days(tmp_path, uris)
    assert set(days) == {uris[0], uris[2]}
    assert days[uris[2]] - days[uris[0]] == pytest.approx(1)
    assert parse_days('no date') is None


def test_the_page_has_every_figure_and_table(dataset):
    options = ['--retest-sessions', '1', '2', '--group-column', 'dx', '--models', 'net.a']
    run(dataset, *options)
    page = (dataset[1] / 'group.html').read_text()
    assert page.count('<svg') == page.count('<figure>') == 6
    assert page.count('<table class="data') == 7  # that of the answer, and no table of nothing
    assert not re.search(r'https?:|src=|@import|url\(', page)
    assert not re.search(r'(?<![\w-])nan(?![\w-])', page, flags=re.IGNORECASE)
    assert page.count('n = 60.') == 6


def test_names_cannot_break_the_page(dataset, tmp_path):
    bids, out = dataset
    copy = tmp_path / 'out'
    shutil.copytree(out, copy)
    path = copy / 'sub-000/ses-1/anat/sub-000_ses-1_brainage.tsv'
    path.write_text(path.read_text().replace('net.a', 'net.</script><b>&"x'))
    run((bids, copy))
    page = (copy / 'group.html').read_text()
    assert 'net.</script>' not in page and '<b>&' not in page


def test_gaps_give_a_page(tmp_path):
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    bids.mkdir()
    write_people(out, n=1, models=('net.a',))
    assert run((bids, out), '--session-label', '1') == 0
    page = (out / 'group.html').read_text()
    assert 'Repeated scans' not in page and '1 people are too few' in page
    assert row_of(out, 'accuracy', subset='all')['r'] == 'n/a'


def test_a_table_of_an_earlier_run_does_not_stay(dataset, tmp_path):
    bids, out = dataset
    copy = tmp_path / 'out'
    shutil.copytree(out, copy)
    assert run((bids, copy)) == 0
    assert (copy / 'group_fusion.tsv').exists()
    assert run((bids, copy), '--models', 'net.a') == 0
    assert not list(copy.glob('group_fusion.*'))


def test_thousands_of_people_keep_the_page_small():
    import pandas as pd

    from bids_brainage.reports.group import render_group_page
    from bids_brainage.statistics.tables.analysis import analyse
    from bids_brainage.statistics.tables.options import GroupOptions

    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 20000)
    names = [f'sub-{k}' for k in range(age.size)]
    data = pd.DataFrame(
        {
            'participant_id': names,
            'session_id': None,
            'run': None,
            'source': names,
            'model': 'net.a',
            'age': age,
            'predicted_age': age + rng.normal(0, 4, age.size),
            'status': 'ok',
        }
    )
    result = analyse(data, GroupOptions(draws=50))
    page = render_group_page(result.tables, {**result.facts, 'warnings': []}, result.plots)
    assert len(page) < 3_000_000
    assert 'An even selection of 1500 is drawn' in page


@needs_browser
def test_sorting_filtering_and_layout_in_a_browser(dataset, tmp_path):
    """The page runs its script in a real browser and reports what it did."""
    run(dataset, '--retest-sessions', '1', '2', '--group-column', 'dx')
    script = """
      const table = document.getElementById('data-accuracy');
      table.closest('details').open = true;
      const heads = Array.from(table.tHead.rows[0].cells);
      const column = heads.findIndex((h) => h.dataset.column === 'mae');
      heads[column].querySelector('button').click();
      const values = Array.from(
        table.tBodies[0].rows, (r) => Number(r.cells[column].dataset.value));
      const sorted = values.every((v, k) => !k || values[k - 1] <= v);
      heads[column].querySelector('button').click();
      const top = Number(table.tBodies[0].rows[0].cells[column].dataset.value);
      const input = document.querySelector('input[data-table="data-accuracy"]');
      input.value = 'net.b sex';
      input.dispatchEvent(new Event('input', { bubbles: true }));
      const shown = Array.from(table.tBodies[0].rows).filter((r) => !r.hidden).length;
      const tsv = JSON.parse(document.getElementById('tsv-accuracy').textContent);
      const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
      return {
        sorted, descending: top === Math.max(...values), shown, wide,
        header: tsv.split('\\n')[0].split('\\t').slice(0, 2),
      };
    """
    for width in (1280, 500):
        assert ask(dataset[1] / 'group.html', script, tmp_path, width) == {
            'sorted': True,
            'descending': True,
            'shown': 2,
            'wide': False,
            'header': ['model', 'subset'],
        }, width
