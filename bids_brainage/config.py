"""Settings of a run: made once from the command line, then passed, never global."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BIAS_CORRECTIONS = ('linear', 'tails', 'none')
"""Ways to correct the ages of a study: the first is the default."""


@dataclass(frozen=True)
class Environment:
    """Facts about the machine and the program; recorded, never read back as options.

    Attributes
    ----------
    version, python, platform : str
        Versions of this package and of Python; operating system.
    cpu_count : int
        CPUs this process may use (affinity and cgroup).
    memory_gb : float
        Memory visible to this process, GB of 2^30 bytes.
    container_type, container_tag : str or None
        ``docker`` or ``apptainer``, and the tag baked into the image; None natively.
    command : str or None
        The command line, as a shell takes it.
    """

    version: str
    python: str
    platform: str
    cpu_count: int
    memory_gb: float
    container_type: str | None = None
    container_tag: str | None = None
    command: str | None = None


OUTPUT_LEVELS = ('minimal', 'standard', 'full')
"""How much of a scan stays in the output dataset; see `bids_brainage.workflows.images.KEPT`."""


@dataclass(frozen=True)
class Execution:
    """What to run on, where to write, and how to behave.

    `participant_label`, `session_label` and `task_id` are bare labels, empty for all;
    `derivatives` are folders by name; `bids_filters` has the form of
    `bids_brainage.dataset.check_filters`; `level` is one of `OUTPUT_LEVELS`.
    """

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    work_dir: Path
    run_id: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    derivatives: dict[str, str] = field(default_factory=dict)
    bids_filters: dict[str, Any] = field(default_factory=dict)
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    dry_run: bool = False
    reports_only: bool = False
    aggregate_session_reports: int = 4
    level: str = 'full'
    clean_workdir: bool = False
    keep_work: bool = False
    debug: bool = False
    boilerplate_only: bool = False
    md_only_boilerplate: bool = False
    resource_monitor: bool = False
    write_graph: bool = False
    offline: bool = False
    verbosity: int = 0

    def derivatives_of(self, kind: str) -> tuple[str, Path] | None:
        """Return name and folder of the derivatives of a kind, if they were given."""
        for name, path in self.derivatives.items():
            if name.lower().startswith(kind):
                return name, Path(path)
        return None

    @property
    def database_to_use(self) -> Path | None:
        """Folder of the pybids index; None where a dry run would have to make it."""
        folder = self.bids_database_dir
        there = folder is not None and (folder / 'layout_index.sqlite').exists()
        return folder if there or not self.dry_run else None

    @property
    def log_level(self) -> int:
        """Logging level: 25 (IMPORTANT), 5 less for each ``-v``, at least 10; 10 to debug."""
        return 10 if self.debug else max(25 - 5 * self.verbosity, 10)


@dataclass(frozen=True)
class Workflow:
    """What to compute.

    `models` empty means the documented default set; `saliency` None means each bundle's own
    method and an empty tuple no maps; `atlas` is understood by
    `bids_brainage.preprocessing.bold.atlases.resolve_atlas`, with `atlas_labels` as its table;
    `aicbv_weights` are those of a generator of CBV maps; `output_spaces` are further spaces of
    the images, as fMRIPrep writes them; `connectivity` asks for BOLD series where no model takes
    them; `harmonise` is ``all`` or ``COLUMN=VALUE``: the people who say how the tables of other
    programs differ by site.
    """

    models: tuple[str, ...] = ()
    model_dir: Path | None = None
    saliency: tuple[str, ...] | None = None
    age_column: str = 'age'
    anat_only: bool = False
    connectivity: bool = False
    atlas: str = 'power2011'
    atlas_labels: Path | None = None
    synthetic_slices: bool = False
    aicbv_weights: Path | None = None
    output_spaces: tuple[str, ...] = ()
    consensus: bool = False
    harmonise: str | None = None
    sloppy: bool = False

    def image_options(self) -> dict[str, Any]:
        """Return the options that alter shared images, for the configuration hash."""
        return {'sloppy': self.sloppy}


@dataclass(frozen=True)
class Nipype:
    """Resources and the engine; `memory_gb` is a scheduling hint in GB of 2^30 bytes."""

    nprocs: int
    omp_nthreads: int
    memory_gb: float
    device: str = 'auto'
    plugin: str = 'MultiProc'
    plugin_args: dict[str, Any] = field(default_factory=dict)
    stop_on_first_crash: bool = False

    @property
    def uses_gpu(self) -> bool:
        """Whether models are counted against the GPUs."""
        return self.device.startswith('cuda')


@dataclass(frozen=True)
class Seeds:
    """Seed of the random generators of Python, NumPy and torch."""

    random_seed: int = 0


@dataclass(frozen=True)
class Group:
    """What the group level compares.

    `retest_sessions` holds pairs one after the other, with ``ses-``; `retest_max_days` is the
    longest interval of test-retest sessions; `reference_group` is ``COLUMN=VALUE``;
    `bias_correction` is one of `BIAS_CORRECTIONS`; a decade of age needs `min_bin_n` scans to be
    the worst one; `exclude_flags` are quality flags whose images are left out, beside those that
    say "do not use", which only `include_flagged` counts; `ratings` is a table saved from
    ``index.html``; `predictions` are tables of trainings.
    """

    group_column: str | None = None
    covariates: tuple[str, ...] = ()
    retest_sessions: tuple[str, ...] = ()
    retest_max_days: float = 90.0
    reference_group: str | None = None
    bias_correction: str = 'linear'
    correlate: tuple[str, ...] = ()
    min_bin_n: int = 5
    include_flagged: bool = False
    exclude_flags: tuple[str, ...] = ()
    ratings: Path | None = None
    predictions: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Train:
    """What to train: architectures, tag of the bundle, and changes of the recipe.

    None means what the recipe says; `devices` counts processes on each of `num_nodes` nodes.
    """

    arch: tuple[str, ...] = ()
    bundle_name: str | None = None
    recipe: Path | None = None
    split: Path | None = None
    cohorts: Path | None = None
    folds: int | None = None
    epochs: int | None = None
    start_from: str | None = None
    resume: bool = False
    devices: int = 1
    num_nodes: int = 1


@dataclass(frozen=True)
class Config:
    """All settings of a run, by section."""

    environment: Environment
    execution: Execution
    workflow: Workflow
    nipype: Nipype
    seeds: Seeds
    group: Group = field(default_factory=Group)
    train: Train = field(default_factory=Train)

    def to_toml(self) -> str:
        """Write as TOML.

        Absent values are left out and free-form mappings (filters, plugin arguments) become
        JSON text, as TOML has no null.
        """
        import tomli_w

        sections = {
            name: {key: _plain(value) for key, value in section.items() if value is not None}
            for name, section in asdict(self).items()
        }
        return tomli_w.dumps(sections)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
