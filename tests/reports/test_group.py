"""The group page says first what was asked, with limits, and leads to the people."""

from __future__ import annotations

import json
import re

import group_cohort as study
import numpy as np
import pandas as pd
import pytest
from browser_probe import ask, needs_browser
from html_page import Page

from bids_brainage.cli.main import main
from bids_brainage.reports.group_figures import MIN_PEOPLE, model_summary
from bids_brainage.statistics.tables.analysis import analyse
from bids_brainage.statistics.tables.options import GroupOptions
from bids_brainage.tsv import read_tsv

OPTIONS = ['--group-column', 'dx', '--reference-group', 'dx=control', '--correlate', 'mmse']
VISIBLE = """
  const seen = (e) => {
    const b = e.getBoundingClientRect();
    return b.width > 0 && b.left >= 0 && b.right <= document.documentElement.clientWidth;
  };
"""


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    """The page of 40 controls and 20 patients."""
    root = tmp_path_factory.mktemp('page')
    study.write_cohort(root)
    described = {'Name': 'Memory <clinic>', 'BIDSVersion': '1.10.0'}
    (root / 'bids' / 'dataset_description.json').write_text(json.dumps(described))
    places = [str(root / 'bids'), str(root / 'out'), 'group', '-w', str(root / 'work')]
    assert main([*places, *OPTIONS]) == 0
    return root / 'out'


def row(out, table, **cells):
    rows = read_tsv(out / f'group_{table}.tsv')
    (found,) = [r for r in rows if all(r[k] == v for k, v in cells.items())]
    return {
        k: float(v) if re.fullmatch(r'-?\d+(\.\d+)?(e-\d+)?', v) else v for k, v in found.items()
    }


def test_the_answer_is_a_sentence_with_limits_and_numbers(out):
    text = Page((out / 'group.html').read_text()).text
    found = row(out, 'differences', test='ancova_pair', corrected='false')
    assert (
        f'Brains in the group “Alzheimer’s patient” look {found["estimate"]:.1f} years (95 % '
        f'limits {found["ci_low"]:.1f} to {found["ci_high"]:.1f}) older than in “control” at the '
        'same age and sex (analysis of covariance, n 20 and 35, p < 0.001).'
    ) in text
    found = row(out, 'differences', test='correlation', level_a='all', corrected='true')
    value, low, high = (
        f'{found[k]:.2f}'.replace('-', '−') for k in ('estimate', 'ci_low', 'ci_high')
    )
    assert f'r = {value} (95 % limits {low} to {high})' in text
    assert text.index('Brains in the group') < text.index('r = −') < text.index('Mean absolute')


def test_study_date_version_and_command_are_on_the_page(out):
    text = Page((out / 'group.html').read_text()).text
    assert 'Memory <clinic>' in text
    assert re.search(r'Made on\s+20\d\d-\d\d-\d\d', text)
    assert re.search(r'bids_brainage\s+\d+\.\d+', text)
    assert 'group --group-column dx --reference-group dx=control --correlate mmse' in text


def test_tiles_are_of_the_reference_group_with_limits(out):
    text = Page((out / 'group.html').read_text()).text
    found = row(out, 'accuracy', subset='reference', corrected='false')
    assert found['n_subjects'] == 35
    everybody = row(out, 'accuracy', subset='all', corrected='false')
    assert everybody['mae'] > found['mae'] + 0.5
    assert 'Over 35 images of 35 people of the reference group (dx=control)' in text
    page = (out / 'group.html').read_text()
    tiles = re.findall(r'<p class="number">(.*?)</p><p class="range">(.*?)</p>', page)
    assert len(tiles) == 4
    assert all(note.startswith('95 % limits') for _, note in tiles)
    assert tiles[0][0].startswith(f'{found["mae"]:.1f} ')


def test_people_are_links_and_nothing_is_empty(out):
    page = Page((out / 'group.html').read_text())
    links = {a['href'] for tag, a in page.seen if tag == 'a' and not a['href'].startswith('#')}
    assert links == {f'sub-{k + 1:02d}.html' for k in range(60)}
    text = (out / 'group.html').read_text()
    points = re.findall(r'<a href="(sub-\d\d)\.html"><circle[^>]*><title>(sub-\d\d):', text)
    assert len(points) == 4 * 55 and all(a == b for a, b in points)
    assert 'id="data-reliability"' not in text and 'id="data-change-summary"' not in text
    assert 'No person' not in page.text and 'No rows' not in page.text
    figures = re.findall(r'<figure>(.*?)</figure>', text, flags=re.DOTALL)
    assert len(figures) == 5 and all('<svg' in f for f in figures)
    assert 'Brain cut off (31 cm²)' in page.text


def test_the_line_of_the_reference_group_and_its_band(out):
    text = (out / 'group.html').read_text()
    first = re.search(r'<section class="card" id="groups">.*?</svg>', text, flags=re.DOTALL)[0]
    assert first.count('class="confidence"') == 1
    assert len(re.findall(r'class="point g0"', first)) == 35
    assert len(re.findall(r'class="point g1"', first)) == 20
    assert 'control (n = 35)' in first and 'Alzheimer’s patient (n = 20)' in first


@needs_browser
@pytest.mark.parametrize('width', [1280, 500, 390])
def test_the_answer_is_read_without_scrolling_sideways(out, tmp_path, width):
    script = (
        VISIBLE
        + """
      location.hash = '#table-differences';
      await new Promise((done) => setTimeout(done, 200));
      const fold = document.getElementById('data-differences').closest('details');
      const heads = (id, n) => Array.from(
        document.querySelectorAll(`#${id} thead th`)).slice(0, n).map(seen);
      return {
        wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
        answer: heads('data-answer', 6),
        cells: Array.from(document.querySelectorAll('#data-answer tbody td')).map(seen),
        whole: Array.from(document.querySelectorAll('#data-answer tbody td.num')).every(
          (cell) => cell.getBoundingClientRect().height < 40),
        tests: heads('data-differences', 7),
        limits: seen(document.querySelector('#data-differences td small')),
        unfolded: fold.open,
        folded: Array.from(document.querySelectorAll('details')).filter((d) => !d.open).length,
      };
    """
    )
    found = ask(out / 'group.html', script, tmp_path, width)
    assert found['wide'] is False
    assert found['cells'] == [True] * 6 and found['whole']
    assert found['answer'] == [width > 720] * 6  # else each number stands beside its name
    assert found['unfolded'] and found['folded'] >= 3
    if width == 1280:
        assert found['tests'] == [True] * 7 and found['limits']


@needs_browser
@pytest.mark.parametrize('width', [1280, 390])
def test_what_is_folded_away_fits_too(out, tmp_path, width):
    script = """
      for (const fold of document.querySelectorAll('details')) fold.open = true;
      const edge = document.documentElement.clientWidth;
      return {
        wide: document.documentElement.scrollWidth - edge,
        cut: Array.from(document.querySelectorAll('p, h1, h2, h3, dl, pre'))
          .filter((part) => part.getBoundingClientRect().right > edge)
          .map((part) => part.textContent.slice(0, 60)),
      };
    """
    assert ask(out / 'group.html', script, tmp_path, width) == {'wide': 0, 'cut': []}


CLASHES = """
  const clash = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const found = [];
  for (const plot of document.querySelectorAll('svg.plot')) {
    const frame = plot.getBoundingClientRect();
    const words = Array.from(plot.querySelectorAll('text'));
    const boxes = words.map((word) => word.getBoundingClientRect());
    words.forEach((word, k) => {
      const box = boxes[k];
      if (box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom)
        found.push(`${word.textContent} is cut`);
      boxes.slice(k + 1).forEach((other, j) => {
        const name = words[k + 1 + j].textContent;
        if (clash(box, other)) found.push(`${word.textContent} on ${name}`);
      });
    });
  }
  const size = Math.min(...Array.from(document.querySelectorAll('svg.plot')).map(
    (plot) => parseFloat(getComputedStyle(plot.querySelector('text')).fontSize)
      * plot.getBoundingClientRect().width / 480));
  return { found, legible: size >= 8.5 };
"""


@needs_browser
@pytest.mark.parametrize('width', [1280, 390])
def test_words_of_figures_are_legible_and_touch_nothing(out, tmp_path, width):
    assert ask(out / 'group.html', CLASHES, tmp_path, width) == {'found': [], 'legible': True}


@needs_browser
def test_the_line_has_the_colour_of_the_reference_group(out, tmp_path):
    script = """
      const own = (kind) => getComputedStyle(document.querySelector(`#groups ${kind}`));
      return [own('.mean-line').stroke, own('.confidence').fill, own('.point.g0').fill];
    """
    line, band, point = ask(out / 'group.html', script, tmp_path)
    assert line == band == point


def test_without_a_reference_the_page_says_whose_accuracy_it_is(out):
    data = study.cohort()
    result = analyse(data, GroupOptions(group_column='dx', draws=50))
    text = model_summary('net.a', result.tables, result.facts)['sentence']
    assert '55 people' in text and '--reference-group' in text


def test_few_people_and_few_pairs_make_no_numbers():
    """Two pairs of scans gave "0.6 years"."""
    data = study.cohort().iloc[study.DAMAGED :].head(MIN_PEOPLE - 1)
    again = data.head(2).assign(session_id='ses-2')
    again['source'] = again['source'].str.replace('_T1w', '_ses-2_T1w')
    again['predicted_age'] += [0.6, 0.9]
    both = [data.assign(session_id='ses-1'), again]
    result = analyse(
        pd.concat(both, ignore_index=True),
        GroupOptions(group_column='dx', retest_sessions=(('ses-1', 'ses-2'),), draws=50),
    )
    assert np.isfinite(result.tables['reliability']['sem']).all()
    summary = model_summary('net.a', result.tables, result.facts)
    assert summary['sentence'] == '9 people are too few to say how wrong it is.'
    assert {tile['value'] for tile in summary['tiles']} == {'n/a'}
    assert '2 people scanned twice; 10 are needed' in [tile['note'] for tile in summary['tiles']]
