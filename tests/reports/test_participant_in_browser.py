"""The page of a participant as a browser lays it out and prints it."""

import re

import pytest
from browser import ask, sheets
from report_tree import add_pictures, add_scan, add_volumes, make_tree, save_head

from bids_brainage.reports.participant import build_participant_report

OUTSIDE = """
[...document.querySelectorAll('.chart text, .frame.brief text')]
  .filter(text => !text.closest('details:not([open])')).map(text => {
  const own = text.getBoundingClientRect();
  const frame = text.closest('.frame, .card').getBoundingClientRect();
  return [text.textContent, own.left - frame.left, frame.right - own.right,
          own.top - frame.top, frame.bottom - own.bottom];
}).filter(([words, ...room]) => words && Math.min(...room) < 2)
"""
WIDE = """
[...document.querySelectorAll('table, h1, h2, h3, p, .curves, .beside, .chart')]
  .filter(part => !part.closest('details, .trend-box'))
  .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth
          || part.scrollWidth > part.clientWidth + 1 && part.clientWidth > 0)
  .map(part => part.tagName + ' ' + part.className + ' ' + part.textContent.slice(0, 40))
"""


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """One scan with everything a first page can hold: two models, two flags, volumes, a map."""
    root = tmp_path_factory.mktemp('out')
    add_scan(
        root, 'sub-01', age=61.0, predicted_age=72.0, interval_low=63.7, interval_high=80.3,
        interval_level=0.9, predicted_age_corrected=70.1, predicted_age_sd=1.2,
        qc_flag='mask_disagreement;anisotropic', in_training_range=True,
    )  # fmt: skip
    add_pictures(root, 'sub-01', save_head(tmp_path_factory.mktemp('head')))
    add_volumes(root, 'sub-01', 61.0, factor=2.0)
    (path,) = build_participant_report(root, '01')
    return path.read_text('utf-8')


@pytest.mark.parametrize('size', ['A4', 'letter'])
def test_first_part_fits_one_sheet(page, tmp_path, size):
    start, end = page.index('<section class="card" id="scan-1"'), page.index('<footer>')
    first = page[:start] + page[end:]
    for words in ('72.0', '63.7 to 80.3 years', 'Percentile', 'Ventricles', 'Do not use'):
        assert words in first
    assert len(re.findall('class="chart curve"', first)) == 5
    assert 'frame brief' in first
    assert sheets(first, tmp_path, size) == 1


@pytest.mark.parametrize('width', [1280, 390])
def test_no_text_touches_a_frame_and_no_table_is_cut(page, tmp_path, width):
    found = ask(page, tmp_path, width, f'{{outside: {OUTSIDE.strip()}, wide: {WIDE.strip()}}}')
    assert found['outside'] == []
    assert found['wide'] == []


@pytest.mark.parametrize('width', [1280, 390])
def test_sessions_and_a_failed_scan_fit_every_width(tmp_path, width):
    (path,) = build_participant_report(make_tree(tmp_path / 'out'), '01')
    script = f"""{{
      outside: {OUTSIDE.strip()}, wide: {WIDE.strip()},
      failed: [...document.querySelectorAll('.hero')].map(part => part.innerText)
        .filter(words => words.includes('No age was predicted')).join(),
      trend: document.querySelector('#trend').getBoundingClientRect().top
        < document.querySelector('.hero').getBoundingClientRect().top,
    }}"""
    found = ask(path.read_text('utf-8'), tmp_path, width, script)
    assert found['outside'] == [] and found['wide'] == [] and found['trend']
    assert 'Brain mask holds 312 mL' in found['failed']
    assert 'No measured accuracy' not in found['failed']


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('what', ['one scan', 'sessions'])
def test_what_is_folded_away_fits_too(page, tmp_path, what, width):
    text = page
    if what == 'sessions':
        (path,) = build_participant_report(make_tree(tmp_path / 'out'), '01')
        text = path.read_text('utf-8')
    opened = text.replace('<details', '<details open')
    everything = WIDE.replace("'details, .trend-box'", "'.trend-box'")
    script = f"""{{
      wide: {everything.strip()},
      page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      folds: document.querySelectorAll('details').length,
    }}"""
    found = ask(opened, tmp_path, width, script)
    assert found['folds'] > 2
    assert found['wide'] == [] and found['page'] == 0


BARS = """
[...document.querySelectorAll('table.bars')].map(table => {
  const years = [...table.querySelectorAll('td.num')].map(
    cell => parseFloat(cell.innerText.replace('−', '-')));
  const drawn = [...table.querySelectorAll('tbody tr:not(.ends)')].map(row => {
    const bars = [...row.querySelectorAll('svg rect')].map(bar => bar.getBoundingClientRect());
    return Math.max(...bars.map(box => box.width));
  });
  return {years, drawn};
})
"""


def test_bars_add_up_to_the_age_and_are_as_long_as_they_say(page, tmp_path):
    (table,) = ask(page, tmp_path, 1280, BARS)
    base, *parts, age = table['years']
    assert base + sum(parts) == pytest.approx(age, abs=0.1)
    scale = [length / abs(years) for length, years in zip(table['drawn'], parts, strict=True)]
    assert min(scale) == pytest.approx(max(scale), rel=0.1)
