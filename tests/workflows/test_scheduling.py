"""Steps run scan by scan, and the parent sleeps until one has ended."""

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_brainage.workflows import scheduling
from bids_brainage.workflows.scheduling import ScanByScan

SCANS, STEPS = ('scan_a', 'scan_b', 'scan_c'), ('one', 'two')


def wait_and_add(number):
    import time

    time.sleep(0.6)
    if number < 0:
        raise ValueError('negative')
    return number + 1


def make(base_dir, numbers):
    whole = pe.Workflow('whole', base_dir=str(base_dir))
    whole.config['execution'] = {'poll_sleep_duration': 0.1, 'crashdump_dir': str(base_dir)}
    for name, number in zip(SCANS, numbers, strict=True):
        one, two = (
            pe.Node(niu.Function(function=wait_and_add, output_names=['number']), name=step)
            for step in STEPS
        )
        one.inputs.number = number
        scan = pe.Workflow(name)
        scan.connect([(one, two, [('number', 'number')])])
        whole.add_nodes([scan])
    return whole


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """Return what runs workflows of three scans, and what was seen of it."""
    monkeypatch.setattr(scheduling, 'LONGEST_WAIT_S', 60.0)  # waking must come from the steps
    looks, ended = [], []
    original = ScanByScan._send_procs_to_workers

    def look(self, *args, **kwargs):
        looks.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ScanByScan, '_send_procs_to_workers', look)

    def run(numbers=(1, 2, 3)):
        def note(node, status):
            if status == 'end':
                ended.append('.'.join(node.fullname.split('.')[-2:]))

        plugin = ScanByScan(
            SCANS, {'n_procs': 1, 'mp_context': 'forkserver', 'status_callback': note}
        )
        make(tmp_path, numbers).run(plugin=plugin)

    run.looks, run.ended = looks, ended
    return run


def test_a_scan_is_finished_before_the_next_begins(followed):
    followed()
    assert followed.ended == [f'{scan}.{step}' for scan in SCANS for step in STEPS]
    # six steps of 0.6 s each: ten looks a second would be forty
    assert len(followed.looks) <= 3 * len(followed.ended)


def test_a_failed_step_wakes_the_parent_and_costs_its_own_scan(followed):
    with pytest.raises(RuntimeError, match='negative'):
        followed((1, -5, 3))
    assert followed.ended == ['scan_a.one', 'scan_a.two', 'scan_c.one', 'scan_c.two']
