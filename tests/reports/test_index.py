"""The page of all scans: what it shows, its keys and filters, and ratings that come back."""

from __future__ import annotations

import re
from functools import partial
from threading import Thread

import group_cohort as study
import pytest
from browser_probe import ask, needs_browser
from html_page import Page

from bids_brainage.cli.main import main
from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError
from bids_brainage.outputs.files import locked
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.reports.index import write_index
from bids_brainage.reports.participant import build_participant_report
from bids_brainage.runs.group import run_group
from bids_brainage.tsv import read_tsv

PRESS = """
  const press = (key) => (document.activeElement || document.body).dispatchEvent(
    new KeyboardEvent('keydown', { key, bubbles: true }));
  const shown = () => Array.from(list.children).filter((s) => !s.hidden);
  const pick = (id, value) => {
    control(id).value = value;
    control(id).dispatchEvent(new Event('input', { bubbles: true }));
  };
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('index')
    study.write_cohort(root)
    write_index(root / 'out')
    return root


def test_every_scan_with_age_gap_flags_picture_and_page(root):
    page = Page((root / 'out' / 'index.html').read_text())
    data = study.cohort()
    links = {a['href'] for tag, a in page.seen if tag == 'a' and 'class' not in a}
    assert links == {f'{name}.html' for name in data['participant_id']}
    pictures = [a['src'] for tag, a in page.seen if tag == 'img']
    assert len(pictures) == 60 and all((root / 'out' / name).exists() for name in pictures)
    gap = data['predicted_age'] - data['age']
    for age, predicted, years in zip(data['age'], data['predicted_age'], gap, strict=True):
        words = f'Age {age:.1f} years , predicted {predicted:.1f} years , gap {years:+.1f} years'
        assert words.replace('-', '−') in page.text
    assert page.text.count('Brain cut off (31 cm²)') == study.DAMAGED
    assert not re.search(r'https?:|@import|url\(', (root / 'out' / 'index.html').read_text())


def test_the_age_shown_is_that_of_the_reports_and_failures_are_listed(tmp_path):
    rows = [
        ('sub-1', 'a.wide', 60.0, {'mae': 9.0}, 'ok'),
        ('sub-1', 'z.close', 50.0, {'mae': 3.0}, 'ok'),
        ('sub-2', 'a.wide', None, {'mae': 9.0}, 'failed'),
    ]
    for who, model, age, check, status in rows:
        source = f'bids:raw:{who}/ses-1/anat/{who}_ses-1_run-2_T1w.nii.gz'
        row = brainage_row(
            participant_id=who, session_id='ses-1', source=source, model=model,
            predicted_age=age, status=status,
        )  # fmt: skip
        table = tmp_path / who / 'ses-1' / 'anat' / f'{who}_ses-1_run-2_brainage.tsv'
        facts = {'Validation': [{'dataset': 'x', 'n': 40, **check}]}
        write_brainage(table, [row], models={model: facts})
    (tmp_path / 'sub-1_ses-1.html').write_text('')
    (tmp_path / 'sub-1.html').write_text('')
    write_index(tmp_path)
    page = Page((tmp_path / 'index.html').read_text())
    assert 'predicted 50.0 years , gap n/a (z.close)' in page.text
    assert 'predicted n/a' in page.text
    assert [a['href'] for tag, a in page.seen if tag == 'a'] == ['sub-1_ses-1.html']
    assert 'sub-1 ses-1 run-2' in page.text and not [t for t, _ in page.seen if t == 'img']


def test_no_result_no_page_and_the_same_page_twice(root, tmp_path):
    assert write_index(tmp_path) is None
    before = (root / 'out' / 'index.html').stat().st_mtime_ns
    write_index(root / 'out')
    assert (root / 'out' / 'index.html').stat().st_mtime_ns == before


@needs_browser
@pytest.mark.parametrize('width', [1280, 390])
def test_pictures_filters_keys_and_the_saved_table(root, tmp_path, width):
    script = (
        PRESS
        + """
      localStorage.clear();
      recall({});
      const picture = list.querySelector('img');
      await new Promise((done) => setTimeout(done, 300));
      const found = { all: shown().length, drawn: picture.naturalWidth };
      pick('flag', 'flag-field_of_view_cut');
      found.cut = shown().length;
      pick('flag', 'stop');
      found.stop = shown().length;
      pick('flag', 'none');
      found.none = shown().length;
      pick('flag', '');
      pick('words', 'sub-0');
      found.named = shown().length;
      pick('words', '');
      pick('order', 'gap');
      found.first = Math.abs(Number(list.children[0].dataset.gap)) > 30;
      pick('order', '');
      press('j'); press('j'); press('r');
      found.here = document.activeElement.dataset.person;
      press('ArrowLeft'); press('a');
      const note = list.children[1].querySelector('input[type="text"]');
      note.value = 'mask\tin the neck';
      note.dispatchEvent(new Event('input', { bubbles: true }));
      pick('rating', 'reject');
      found.rejected = shown().map((s) => s.dataset.person);
      pick('rating', '');
      found.table = table();
      found.rated = control('rated').textContent;
      for (const scan of scans) show(scan, '', '');
      load(found.table);
      found.again = table() === found.table;
      found.kept = Object.keys(JSON.parse(localStorage.getItem(STORE))).length;
      const boxes = Array.from(list.children[0].querySelectorAll('input[type="radio"]'));
      found.rows = new Set(boxes.map((box) => Math.round(box.getBoundingClientRect().top))).size;
      found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
      return found;
    """
    )
    found = ask(root / 'out' / 'index.html', script, tmp_path, width)
    saved = found.pop('table')
    assert found == {
        'all': 60,
        'drawn': 300,
        'cut': study.DAMAGED,
        'stop': study.DAMAGED,
        'none': 60 - study.DAMAGED - 1,
        'named': 9,
        'first': True,
        'here': 'sub-02',
        'rejected': ['sub-02'],
        'rated': '2',
        'again': True,
        'kept': 2,
        'rows': 1,
        'wide': False,
    }
    path = tmp_path / 'ratings.tsv'
    path.write_text(saved)
    first, second = read_tsv(path)
    assert (first['participant_id'], first['rating'], first['note']) == ('sub-01', 'accept', 'n/a')
    assert (second['source'], second['rating'], second['note']) == (
        'bids:raw:sub-02/anat/sub-02_T1w.nii.gz',
        'reject',
        'mask in the neck',
    )


def run(root, path):
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    return run_group(parse([*places, '--include-flagged', '--ratings', str(path)], {}))


def test_rejected_scans_are_left_out(root, tmp_path):
    path = tmp_path / 'ratings.tsv'
    ratings = {'sub-10': 'reject', 'sub-11': 'unsure', 'sub-12': 'accept', 'sub-13': 'n/a'}
    lines = [f'bids:raw:{x}/anat/{x}_T1w.nii.gz\t{word}' for x, word in ratings.items()]
    path.write_text('\n'.join(['source\trating', *lines]) + '\n')
    assert run(root, path) == 0
    (gone,) = read_tsv(root / 'out' / 'group_exclusions.tsv')
    assert (gone['participant_id'], gone['reason']) == ('sub-10', 'rated reject')
    rows = {r['participant_id']: r['rating'] for r in read_tsv(root / 'out/group_brainage.tsv')}
    assert {k: rows[k] for k in ratings} == ratings
    path.write_text('participant_id\trating\nsub-10\treject\nsub-11\treject\n')
    assert run(root, path) == 0
    assert len(read_tsv(root / 'out' / 'group_exclusions.tsv')) == 2
    assert 'Rated: reject' in (root / 'out' / 'group.html').read_text()
    assert (root / 'out' / 'index.html').read_text().count('Group report') == 1


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('participant_id\tmark\nsub-10\tbad\n', 'expected the columns rating'),
        ('participant_id\trating\nsub-10\tbad\n', "accept, unsure, reject, found 'bad'"),
        ('participant_id\trating\n10\treject\n', 'none of its 1 ratings'),
    ],
)
def test_other_tables_are_refused(root, tmp_path, text, words):
    path = tmp_path / 'ratings.tsv'
    path.write_text(text)
    with pytest.raises(OptionError, match=words):
        run(root, path)


def test_a_missing_table_is_told_at_once(root, capsys):
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    with pytest.raises(SystemExit):
        main([*places, '--ratings', 'nowhere.tsv'])
    assert 'nowhere.tsv is not a file' in capsys.readouterr().err


@pytest.mark.parametrize('write', [write_index, partial(build_participant_report, subject='1')])
def test_the_last_of_several_jobs_shows_the_rows_of_all(tmp_path, write):
    """No page is made from rows that were read before another job had written its own."""

    def finish(session):
        source = f'bids:raw:sub-1/ses-{session}/anat/sub-1_ses-{session}_T1w.nii.gz'
        row = brainage_row(
            participant_id='sub-1', session_id=f'ses-{session}', source=source, model='a.b',
            predicted_age=50.0, status='ok',
        )  # fmt: skip
        folder = tmp_path / 'sub-1' / f'ses-{session}' / 'anat'
        write_brainage(folder / f'sub-1_ses-{session}_brainage.tsv', [row])

    finish('early')
    job = Thread(target=write, args=[tmp_path])
    with locked(tmp_path):  # as another job does that writes its pages now
        job.start()
        job.join(0.5)
        assert job.is_alive()
        finish('late')
    job.join()
    (page,) = tmp_path.glob('*.html')
    assert 'early' in page.read_text() and 'late' in page.read_text()
