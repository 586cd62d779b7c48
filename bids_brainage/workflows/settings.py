"""What all workflows of a run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_brainage.preprocessing.template import Template


@dataclass(frozen=True)
class RunSettings:
    """What all scans of a run share.

    Attributes
    ----------
    output_dir, work_dir : Path
    run_id : str
    registration_template, output_template : Template
    provenance : mapping
        Options and versions for the side files.
    saliency : tuple of str or None
        Methods; None is each bundle's own, empty none.
    device : str
    use_gpu : bool
        Whether inference nodes are counted against the GPUs.
    seed, omp_nthreads : int
    sloppy : bool
    atlas : str
        Regions of connectivity, as understood by `resolve_atlas`.
    atlas_table : Path or None
        Region table of a label image.
    synthetic_slices : bool
        Predict research scans as the thick-slice scans that they contain (System C).
    """

    output_dir: Path
    work_dir: Path
    run_id: str
    registration_template: Template
    output_template: Template
    provenance: Mapping[str, Any]
    saliency: tuple[str, ...] | None
    device: str
    use_gpu: bool
    seed: int
    omp_nthreads: int
    sloppy: bool
    atlas: str
    atlas_table: Path | None
    synthetic_slices: bool = False
