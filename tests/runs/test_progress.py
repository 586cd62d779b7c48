"""What a person sees during a run: steps, an estimate, and the closing table."""

import logging
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from bids_brainage.config import Nipype
from bids_brainage.outputs.logs import duration
from bids_brainage.outputs.tables import brainage_row
from bids_brainage.runs import process, progress
from bids_brainage.runs.progress import STEPS, Progress, summary_table

USUAL = {name: seconds for name, (_, seconds) in STEPS.items()}


@dataclass
class Node:
    fullname: str

    @property
    def name(self):
        return self.fullname.rsplit('.', 1)[-1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told."""
    now = [0.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, 'bids_brainage')
    logging.getLogger('bids_brainage').propagate = True
    return lambda: [record.getMessage() for record in caplog.records]


def run(follow, clock, scan, step, seconds, status='end'):
    node = Node(f'whole_wf.{scan}.anat_wf.{step}')
    follow(node, 'start')
    clock[0] += seconds
    follow(node, status)


def test_steps_are_recorded_and_told(clock, lines):
    seen = []
    follow = Progress({'scan_a': 'sub-01'}, 1, lambda *row: seen.append(row))
    run(follow, clock, 'scan_a', 'extract_brain', 9.04)
    assert seen == [('scan_a', 'brain mask', 'ok', 9.0)]
    left = duration(sum(USUAL.values()) - USUAL['extract_brain'])
    assert lines() == [f'sub-01: brain mask (9 s) · about {left} left']


def test_estimate_learns_from_this_machine_and_shares_among_workers(clock, lines):
    scans = {f'scan_{k}': f'sub-{k}' for k in range(4)}
    follow = Progress(scans, 2, lambda *row: None)
    run(follow, clock, 'scan_0', 'register', 2 * USUAL['register'])
    others = 4 * (sum(USUAL.values()) - USUAL['register'])
    expected = (others + 3 * 2 * USUAL['register']) / 2
    assert lines()[-1].endswith(f'about {duration(expected)} left')
    single = Progress(scans, 1, lambda *row: None)
    assert single._remaining() == f' · about {duration(4 * sum(USUAL.values()))} left'


def test_failed_scan_takes_its_other_steps_off_the_estimate(clock, lines):
    seen = []
    follow = Progress({'a': 'sub-01', 'b': 'sub-02'}, 1, lambda *row: seen.append(row))
    run(follow, clock, 'a', 'check', 1.0, status='exception')
    assert seen[-1][2] == 'failed'
    # the other scan is left, with the reading as quick as seen
    left = sum(USUAL.values()) - USUAL['check'] + 1.0
    assert lines()[-1] == f'sub-01: read (failed) · about {duration(left)} left'


def test_estimate_ends_at_nothing(clock, lines):
    follow = Progress({'a': 'sub-01'}, 1, lambda *row: None)
    for step in STEPS:
        run(follow, clock, 'a', step, 5.0)
    assert lines()[-1] == 'sub-01: results (5 s)'


def test_kept_results_and_foreign_nodes(clock, lines):
    seen = []
    follow = Progress({'a': 'sub-01'}, 1, lambda *row: seen.append(row))
    follow(Node('whole_wf.a.anat_wf.check'), 'end')  # cached: it never started
    follow(Node('whole_wf.a.report_wf.draw'), 'end')
    follow(Node('whole_wf.other.check'), 'end')
    assert seen == [('a', 'read', 'ok', 0.0)]
    assert lines()[0].startswith('sub-01: read (kept)')


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0 s'), (89.4, '89 s'), (90, '2 min'), (5369, '89 min'), (5400, '1 h 30 min'),
     (90000, '25 h 0 min')],
)  # fmt: skip
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


def test_summary_has_one_line_a_scan_and_model():
    common = {'participant_id': 'sub-01', 'session_id': 'ses-1', 'model': 'volumes.lifespan'}
    rows = [
        brainage_row(
            **common, source='a', age=70.0, predicted_age=63.456, interval_low=53.4,
            interval_high=73.5, qc_flag='anisotropic;sloppy', status='ok',
        ),
        brainage_row(**{**common, 'session_id': None}, source='b', status='failed'),
    ]  # fmt: skip
    head, rule, first, second = summary_table(rows).splitlines()
    assert head.split() == [
        'participant', 'session', 'run', 'model', 'age', 'brain', 'age', 'interval', 'flags',
    ]  # fmt: skip
    assert set(rule) == {'-', ' '}
    assert first.split('  ')[0] == 'sub-01'
    assert first.endswith('63.5       53.4 to 73.5  anisotropic, sloppy')
    assert second.split() == ['sub-01', 'volumes.lifespan', 'n/a', 'failed', 'n/a']
    assert first.index('volumes') == second.index('volumes') == head.index('model')


def test_a_worker_that_died_is_told_with_what_to_do():
    class Dying:
        def __init__(self):
            self.config = {'execution': {}}

        def run(self, **_options):
            raise BrokenProcessPool('a child process terminated abruptly')

    config = SimpleNamespace(
        nipype=Nipype(1, 1, 1.0, plugin='Linear'),
        execution=SimpleNamespace(resource_monitor=False),
    )
    assert 'again with fewer --nprocs' in process.execute(config, Dying(), Progress({}, 1, print))
