"""Many scans run a few dozen at a time; what belongs together stays together."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from bids_brainage.runs import process
from bids_brainage.runs.batches import batches
from bids_brainage.runs.progress import STEPS, Progress


@dataclass(frozen=True)
class Image:
    uri: str


@dataclass(frozen=True)
class Run:
    scan: Image
    t1w: Image | None


def test_order_stays_and_runs_stay_with_their_t1w():
    images = [Image(f't1w-{k}') for k in range(5)]
    todo = tuple((image, ()) for image in images)
    elsewhere = Image('t1w-of-an-earlier-run')
    series = [
        Run(Image('bold-4'), images[4]), Run(Image('bold-0'), images[0]),
        Run(Image('bold-a'), elsewhere), Run(Image('bold-b'), elsewhere),
        Run(Image('bold-alone'), None),
    ]  # fmt: skip
    found = [
        ([scan.uri for scan, _ in work], [run.scan.uri for run in runs])
        for work, runs in batches(todo, series, 2)
    ]
    assert found == [
        (['t1w-0', 't1w-1'], ['bold-0']),
        (['t1w-2', 't1w-3'], []),
        (['t1w-4'], ['bold-4', 'bold-a', 'bold-b']),
        ([], ['bold-alone']),
    ]


def test_nothing_to_do_is_no_batch():
    assert batches((), (), 10) == []


@pytest.fixture
def passes(monkeypatch):
    """Passes of 100 scans whose workflows are only noted."""
    monkeypatch.setattr(process, 'images_of', lambda todo, series: todo)
    config = SimpleNamespace(
        nipype=SimpleNamespace(nprocs=2, plugin='MultiProc'),
        execution=SimpleNamespace(resource_monitor=False),
    )
    plan = SimpleNamespace(todo=())
    made = process._Passes(SimpleNamespace(config=config), plan, None, None, None)
    made.todo = tuple((Image(f'{k:03d}'), ()) for k in range(100))
    return made


def test_every_scan_runs_once_and_the_estimate_knows_of_the_others(passes, monkeypatch):
    seen = []
    monkeypatch.setattr(passes, '_run', lambda todo, runs, later: seen.append((todo, later)) or '')
    assert passes.run_all(passes.todo) == ''
    assert [len(todo) for todo, _ in seen] == [48, 48, 4]
    assert [later for _, later in seen] == [52, 4, 0]
    assert tuple(item for todo, _ in seen for item in todo) == passes.todo


def test_what_stops_a_batch_stops_the_run(passes, monkeypatch):
    seen = []
    monkeypatch.setattr(passes, '_run', lambda *args, **kw: seen.append(1) or 'a worker died')
    assert passes.run_all(passes.todo) == 'a worker died' and len(seen) == 1


def test_estimate_counts_scans_of_later_batches_as_like_these():
    usual = sum(seconds for _, seconds in STEPS.values())
    here = {f'scan_{k}': f'sub-{k}' for k in range(10)}
    follow = Progress(here, 5, print, later=90)
    from bids_brainage.outputs.logs import duration

    assert follow._remaining() == f' · about {duration(100 * usual / 5)} left'
    again = Progress(here, 5, print, seconds={**follow.seconds, 'register': [28.0, 100.0]})
    assert again.seconds['register'] == [28.0, 100.0]
