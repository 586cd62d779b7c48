"""A Slurm cluster of one node on this machine, for tests: no root, no service manager.

    python tests/slurm_cluster.py FOLDER COMMAND [ARGUMENT ...]

starts munged, slurmctld and slurmd with their files in the folder, runs the command with
``SLURM_CONF`` set, and stops them.  Debian has all three in ``slurm-wlm`` and ``munge``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol')
SYSTEM_PATHS = ('/usr/sbin', '/usr/local/sbin')
READY_SECONDS = 60

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
# a job that was queued again starts after these seconds (else two minutes)
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def find(name: str) -> str | None:
    """Return the path of a program; the daemons are not on everybody's search path."""
    return shutil.which(name, path=os.pathsep.join([os.environ['PATH'], *SYSTEM_PATHS]))


def missing_programs() -> list[str]:
    """Return what is not installed."""
    return [name for name in PROGRAMS if find(name) is None]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return int(listener.getsockname()[1])


def write_configuration(folder: Path) -> Path:
    """Write slurm.conf and a munge key; return the former."""
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    memory_mb = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20
    path = folder / 'slurm.conf'
    text = CONFIGURATION.format(
        host=socket.gethostname().split('.')[0],
        controller=_free_port(),
        daemon=_free_port(),
        user=getpass.getuser(),
        folder=folder,
        cpus=os.cpu_count(),
        memory=memory_mb * 9 // 10,
    )
    path.write_text(text, 'utf-8')
    return path


def _daemons(folder: Path) -> list[list[str]]:
    configuration = str(folder / 'slurm.conf')
    munged = [
        'munged', '--foreground', '--force', f'--key-file={folder / "munge.key"}',
        f'--socket={folder / "munge.socket"}', f'--pid-file={folder / "munged.pid"}',
        f'--log-file={folder / "munged.log"}', f'--seed-file={folder / "munged.seed"}',
    ]  # fmt: skip
    return [
        munged,
        ['slurmctld', '-D', '-f', configuration],
        ['slurmd', '-D', '-f', configuration],
    ]


def _wait_until_idle(environment: dict[str, str], processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        answer = subprocess.run(
            ['sinfo', '--noheader', '--format=%T'],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.stdout.strip() == 'idle':
            return
        dead = [process.args[0] for process in processes if process.poll() is not None]
        if dead:
            raise RuntimeError(f'{", ".join(dead)} ended at once; see the .log files')
        time.sleep(0.5)
    raise RuntimeError(f'the node was not ready after {READY_SECONDS} s: {answer}')


@contextlib.contextmanager
def one_node_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster in a folder; give the environment for its commands; stop it.

    Raises
    ------
    RuntimeError
        If it does not come up.
    """
    folder = folder.resolve()
    environment = {**os.environ, 'SLURM_CONF': str(write_configuration(folder))}
    processes: list[subprocess.Popen] = []
    try:
        for program, *arguments in _daemons(folder):
            with (folder / f'{program}.out').open('wb') as log:
                command = [str(find(program)), *arguments]
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                )
            if program == 'munged':
                while not (folder / 'munge.socket').exists() and processes[0].poll() is None:
                    time.sleep(0.1)
        _wait_until_idle(environment, processes)
        yield environment
    finally:
        subprocess.run(['scancel', '--user', getpass.getuser()], env=environment, check=False)
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def main(arguments: list[str]) -> int:
    """Run a command in a cluster of its own."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True)
    with one_node_cluster(folder) as environment:
        return subprocess.run(arguments[1:], env=environment, check=False).returncode


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
