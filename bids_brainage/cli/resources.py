"""CPUs and memory that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GIB = 1024**3
_FALLBACK_GB = 4.0


def allowed_cpus(root: Path = Path('/')) -> int:
    """Return the number of CPUs allowed by affinity and cgroup quota, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    for folder in _cgroups(root):
        quota = _cpu_quota(folder)
        if quota is not None:
            count = min(count, max(1, math.floor(quota)))
    return max(1, count)


def visible_memory_gb(root: Path = Path('/')) -> float:
    """Return the memory visible to this process in GB (2^30 bytes).

    The smaller of what the kernel calls available and the limits of the cgroups above this
    process.
    """
    limits = []
    for line in _read(root / 'proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _cgroups(root):
        for name in ('memory.max', 'memory.limit_in_bytes'):
            text = _read(folder / name)
            if text.isdigit():
                limits.append(int(text))
    return round(min(limits) / _GIB, 2) if limits else _FALLBACK_GB


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, innermost first."""
    mount = root / 'sys/fs/cgroup'
    for line in _read(root / 'proc/self/cgroup').splitlines() or ['0::/']:
        _, controllers, path = line.split(':', 2)
        for controller in controllers.split(','):
            if controller not in ('', 'cpu', 'memory'):
                continue
            base = mount / controller
            folder = base / path.strip('/')
            while folder != base and base in folder.parents:
                yield folder
                folder = folder.parent
            yield base


def _cpu_quota(folder: Path) -> float | None:
    """Return the CPU quota of one control group in CPUs; None when unlimited."""
    quota, period = [*_read(folder / 'cpu.max').split(), '', ''][:2]
    if not quota:
        quota = _read(folder / 'cpu.cfs_quota_us')
        period = _read(folder / 'cpu.cfs_period_us')
    if quota.isdigit() and period.isdigit() and int(period) > 0 and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8').strip()
    except (OSError, UnicodeDecodeError):
        return ''
