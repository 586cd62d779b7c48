"""What a fitting process has to know, as one file on disk."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bids_brainage.errors import OptionError
from bids_brainage.outputs.files import read_json, write_json
from bids_brainage.training.recipe import Recipe
from bids_brainage.training.splits import SIMULATED, TEST, TRAINING, USED, VALIDATION
from bids_brainage.tsv import read_tsv

JOB_FILE = 'job.json'


@dataclass(frozen=True)
class Job:
    """One architecture to train on one split.

    Attributes
    ----------
    name : str
        ``<arch>.<tag>`` of the bundle to be.
    arch : str
        Registry name.
    declared : dict
        The ``input`` block of the bundle.
    recipe : Recipe
        How to train.
    seed : int
        Of weights, order, dropout and augmentation.
    folder : str
        Where checkpoints and histories go.
    cache, split : str
        Folder of the prepared inputs; the split table.
    accelerator : str
        ``cpu``, ``cuda`` or ``mps``.
    devices, num_nodes : int
        Processes per node, and nodes.
    at_once : int or None
        Scans of a process's batch that go through the network together; None for all.
    """

    name: str
    arch: str
    declared: dict[str, Any]
    recipe: Recipe
    seed: int
    folder: str
    cache: str
    split: str
    accelerator: str = 'cpu'
    devices: int = 1
    num_nodes: int = 1
    at_once: int | None = None

    @property
    def world(self) -> int:
        """Number of processes that train together."""
        return self.devices * self.num_nodes

    def fold_folder(self, fold: int) -> Path:
        """Return the folder of one fold."""
        return Path(self.folder) / f'fold-{fold}'

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a training to be resumed."""
        split = hashlib.sha256(Path(self.split).read_bytes()).hexdigest()
        rows = read_json(Path(self.cache) / 'cache.json')
        return {
            'recipe': self.recipe.as_dict(),
            'input': self.declared,
            'seed': self.seed,
            'processes': self.world,
            'number of scans at once (from --mem)': self.at_once,
            'split': split,
            'inputs': [entry['sha256'] for entry in rows.get('arrays', [])],
        }

    def write(self) -> Path:
        """Write the job into its folder, with its identity.

        The file's time is renewed even if nothing changed: waiting processes look at it.
        """
        path = Path(self.folder) / JOB_FILE
        write_json(path, {**asdict(self), 'identity': self.identity()})
        path.touch()
        return path


def read_job(path: Path | str) -> Job:
    """Read a job that `Job.write` wrote."""
    stored = read_json(path)
    values = {item.name: stored[item.name] for item in fields(Job)}
    return Job(**{**values, 'recipe': Recipe.from_dict(values['recipe'])})


def check_resumable(job: Job, *, resume: bool) -> None:
    """Refuse to mix a new training with an unfinished one.

    Raises
    ------
    OptionError
        There is an unfinished training and `resume` is not given, or it is another training.
    """
    path = Path(job.folder) / JOB_FILE
    if not path.is_file():
        return
    if not resume:
        raise OptionError(
            f'{job.folder} holds a training of {job.name} that was begun before. Give --resume to '
            'go on with it, or another --bundle-name, or delete the folder.'
        )
    old = read_json(path).get('identity', {})
    new = json.loads(json.dumps(job.identity()))
    changed = sorted(key for key in new if old.get(key) != new[key])
    if changed:
        raise OptionError(
            f'--resume: the training in {job.folder} had another {", ".join(changed)}. Use the '
            'same options and data, or another --bundle-name, or delete the folder.'
        )


def fold_sources(job: Job) -> dict[int, dict[str, set[str]]]:
    """Return fold → role → sources; with ``fold_val`` the validation scans test, too."""
    folds: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in read_tsv(job.split):
        if row['fold'].isdigit():
            folds[int(row['fold'])][row['role']].add(row['source'])
    for roles in folds.values():
        if not roles[TEST]:
            roles[TEST] = set(roles[VALIDATION])
    return {
        fold: {role: set(roles[role]) for role in dict.fromkeys((*USED, *roles))}
        for fold, roles in sorted(folds.items())
        if roles[TRAINING]
    }


def learnt_sources(roles: Mapping[str, set[str]]) -> set[str]:
    """Return the scans of a fold that its network learns from, simulated ones among them."""
    return roles[TRAINING] | roles.get(SIMULATED, set())
