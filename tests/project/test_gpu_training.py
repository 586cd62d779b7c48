"""The large training goes on where it was stopped, and its bundles travel in parts."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import gpu_training
import pytest
from gpu_training import Step, advance, cut, join

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.errors import OutputError

TOOL = Path(gpu_training.__file__)


def step(name, text):
    return Step(name, (sys.executable, '-c', text))


def test_steps_that_are_done_are_not_done_again(tmp_path):
    count = tmp_path / 'count'
    steps = [step(name, f"open({str(count)!r}, 'a').write({name!r})") for name in 'ab']
    assert advance(steps, tmp_path / 'done', 60) == 0
    assert advance(steps, tmp_path / 'done', 60) == 0
    assert count.read_text() == 'ab'


def test_time_that_is_up_ends_the_call_and_not_the_training(tmp_path):
    """The step needs two calls: it remembers on disk what it has reached, as the trainings do."""
    begun = tmp_path / 'begun'
    text = (
        f'import pathlib, time; p = pathlib.Path({str(begun)!r}); there = p.exists(); p.touch(); '
        'time.sleep(0 if there else 60)'
    )
    steps = [step('long', text), step('next', '')]
    while not begun.exists():
        assert advance(steps, tmp_path / 'done', 0.5) == 75
    assert advance(steps, tmp_path / 'done', 60) == 0


def test_two_calls_do_not_work_in_one_folder(tmp_path):
    (tmp_path / 'done').mkdir()
    with (tmp_path / 'done' / '.lock').open('w') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert advance([step('never', 'raise SystemExit(4)')], tmp_path / 'done', 60) == 75
    assert advance([step('now', '')], tmp_path / 'done', 60) == 0


def test_a_step_that_fails_ends_the_call_with_its_status(tmp_path):
    steps = [step('wrong', 'raise SystemExit(3)'), step('never', 'raise SystemExit(4)')]
    assert advance(steps, tmp_path / 'done', 60) == 3


def test_bundle_travels_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_training, 'PART_BYTES', 100_000)
    bundle = make_untrained_bundle('vgg8', 'test', tmp_path / 'models', shape=(32, 32, 32))
    parts = tmp_path / 'cut'
    cut(bundle.path, parts)
    sizes = [path.stat().st_size for path in sorted(parts.glob('part-*'))]
    assert len(sizes) > 1 and max(sizes) == 100_000
    join(parts, tmp_path / 'joined')
    there = load_bundle(tmp_path / 'joined' / bundle.name)
    assert there.weights_sha256 == bundle.weights_sha256
    (parts / 'part-001').unlink()
    with pytest.raises(OutputError, match='absent or altered'):
        join(parts, tmp_path / 'again')


@pytest.mark.slow
def test_dry_run_on_the_cpu_in_pieces(tmp_path):
    """Without label maps and real people: generate, train A to D, measure, cut."""
    command = [sys.executable, str(TOOL), 'atlas', str(tmp_path), '--toy', '--minutes']
    place = {**os.environ, 'PYTHONPATH': str(TOOL.parents[1])}
    for minutes, status in (('0.2', 75), ('9', 0)):
        done = subprocess.run([*command, minutes], env=place, check=False)
        assert done.returncode == status
    report = json.loads((tmp_path / 'measured.json').read_text('utf-8'))
    assert len(report['models']) == 4
    for arch, row in report['models'].items():
        assert row['difference_years'] < 0.01
        join(tmp_path / 'cut' / f'{arch}.lifespan', tmp_path / 'joined')
        assert load_bundle(tmp_path / 'joined' / f'{arch}.lifespan').arch == arch
