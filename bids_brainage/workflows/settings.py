"""What all workflows of a run share, and what is to be done with one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.names import memo_path
from bids_brainage.preprocessing.template import Template

if TYPE_CHECKING:
    from bids_brainage.dataset.aicbv import CbvSource
    from bids_brainage.outputs.connectivity import Connectivity


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run with the files that were found for it.

    Attributes
    ----------
    config : Config
    registration_template, output_template : Template
        At 2 mm, on which the warp is found, and at 1 mm, onto which maps are resampled.
    provenance : mapping
        Options and versions for the side files.
    """

    config: Config
    registration_template: Template
    output_template: Template
    provenance: Mapping[str, Any]

    @property
    def output_dir(self) -> Path:
        """Output dataset."""
        return self.config.execution.output_dir

    @property
    def brief(self) -> bool:
        """Whether the pages show the most telling slices only."""
        return self.config.execution.level == 'minimal'

    def memo(self, scan: Scan) -> str:
        """Return the file that remembers the hashes of the scan's input files."""
        return str(self.output_dir / memo_path(scan.subject))


@dataclass(frozen=True)
class Stored:
    """What of a scan stands in the output dataset and is up to date.

    Attributes
    ----------
    images, mask : mapping or None
        Quality measures of the preprocessed images, and of the brain mask alone; None if they
        are yet to be made.
    cbv : Path or None
        Map of cerebral blood volume on the template grid.
    """

    images: Mapping[str, Any] | None = None
    mask: Mapping[str, Any] | None = None
    cbv: Path | None = None


@dataclass(frozen=True)
class ScanWork:
    """What is to be done with one T1w image.

    Attributes
    ----------
    scan : Scan
    bundles : tuple of Bundle
        Models to run.
    images : bool
        Have the images, and the blood-volume map if there is one, whatever the models take.
    stored : Stored
    cbv : CbvSource or None
        Where the scan's map of cerebral blood volume comes from.
    connectivity : mapping
        Name of a model → the connectivity that it gets.
    """

    scan: Scan
    bundles: tuple[Bundle, ...] = ()
    images: bool = False
    stored: Stored = field(default_factory=Stored)
    cbv: CbvSource | None = None
    connectivity: Mapping[str, Connectivity] = field(default_factory=dict)
