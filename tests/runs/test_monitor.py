"""What a run takes of memory and processors, from the files of the kernel."""

import logging
import os
import subprocess
import sys
import time

import pytest

from bids_brainage.runs import monitor
from bids_brainage.runs.monitor import monitored, processes_use
from bids_brainage.tsv import read_tsv

MB = 1024**2
HOLD = f"""
import sys, time
block = bytearray({300 * MB}); block[::4096] = b'x' * len(block[::4096])
sys.stdout.write('held\\n'); sys.stdout.flush()
sys.stdin.readline()
"""


def process(folder, pid, parent, memory_kb, ticks):
    place = folder / str(pid)
    place.mkdir()
    fields = ['S', str(parent), *['0'] * 9, str(ticks), '0']
    (place / 'stat').write_text(f'{pid} (a (b) c) {" ".join(fields)}\n')
    (place / 'status').write_text(f'Name: x\nVmRSS:\t{memory_kb} kB\n')
    return place


def test_all_that_descends_from_a_process_counts_and_nothing_else(tmp_path):
    ticks = os.sysconf('SC_CLK_TCK')
    process(tmp_path, 10, 1, 1024, ticks)
    process(tmp_path, 11, 10, 2048, 2 * ticks)
    place = process(tmp_path, 12, 11, 4096, 3 * ticks)
    process(tmp_path, 13, 1, 8192, 4 * ticks)
    (tmp_path / 'meminfo').write_text('')
    assert processes_use(10, tmp_path) == (7 * 1024 / 1024**2, 6.0)
    (place / 'smaps_rollup').write_text('Rss: 9 kB\nPss:  1024 kB\n')  # the rest is shared
    assert processes_use(10, tmp_path)[0] == 4 * 1024 / 1024**2
    assert processes_use(13, tmp_path) == (8192 / 1024**2, 4.0)


@pytest.mark.skipif(not monitor.PROC.is_dir(), reason='no /proc')
def test_table_has_the_memory_of_a_child_and_the_steps(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'bids_brainage')
    monkeypatch.setattr(logging.getLogger('bids_brainage'), 'propagate', True)
    monkeypatch.setattr(monitor, 'PERIOD_S', 0.05)
    before = processes_use(os.getpid())[0]
    table = tmp_path / 'logs' / 'resources.tsv'
    pipe = subprocess.PIPE
    with (
        monitored(table, lambda: ['sub-01 register', 'sub-02 check']),
        subprocess.Popen(
            [sys.executable, '-c', HOLD], stdin=pipe, stdout=pipe, text=True
        ) as child,
    ):
        assert child.stdout.readline() == 'held\n'
        time.sleep(0.3)
        child.communicate('\n')
    rows = read_tsv(table)
    most = max(float(row['memory']) for row in rows)
    assert before + 0.28 < most < before + 0.6
    assert {row['steps'] for row in rows} == {'sub-01 register; sub-02 check'}
    assert max(float(row['processors']) for row in rows) > 0
    assert f'at most {most:.1f} GB of memory (sub-01 register; sub-02 check)' in caplog.text
