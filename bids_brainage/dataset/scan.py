"""Records of what discovery found: one per image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_brainage.names import source_stem

_RIGHTS = 'give yourself the right to read it (chmod u+r), or fetch it again'


@dataclass(frozen=True)
class Age:
    """Chronological age at a scan.

    Attributes
    ----------
    years : float or None
        Age in years, never negative; None when unknown or refused.
    censored : bool
        True for top-coded ages (``89+``): the person is at least this old.
    source : str or None
        Table the age came from, relative to the dataset.
    problem : str or None
        Why a value that stands in the tables was refused, or what was missing.
    """

    years: float | None = None
    censored: bool = False
    source: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What another program made of a T1w image, on the grid of that image.

    Attributes
    ----------
    t1w : Path
        The image without its bias field.
    mask : Path
        Brain mask.
    uris : tuple of str
        BIDS URIs of both.
    """

    t1w: Path
    mask: Path
    uris: tuple[str, ...]


@dataclass(frozen=True)
class GreyMatter:
    """Modulated grey matter that CAT12 made of a T1w image, on its own grid in MNI space.

    Attributes
    ----------
    path : Path
        Map (``mwp1``).
    report : Path or None
        CAT12's report of the image.
    uris : tuple of str
        BIDS URIs of both.
    """

    path: Path
    report: Path | None
    uris: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """One T1-weighted or BOLD image of the input dataset.

    Attributes
    ----------
    path : Path
        Absolute path; may be a dangling link (see `problem`).
    relative : str
        Path relative to the dataset root, with forward slashes.
    subject, session, run : str
        Labels without ``sub-``, ``ses-``, ``run-``; session and run are None when absent.
    entities : dict
        All entities of the name by short key, in the order of the name.
    suffix, datatype : str
        What the image is used as: ``T1w`` and ``anat`` (also a ``UNIT1`` image), or ``bold`` and
        ``func``; ``table`` and ``anat`` for what another program measured.
    age : Age
        Age at the scan.
    sex : str or None
        ``M``, ``F``, another value as in the dataset, or None.
    metadata : dict
        JSON sidecar content with BIDS inheritance applied.
    dataset : str
        Name of the dataset in URIs.
    prepared : Prepared or None
        What another program made of the image, if it takes the place of steps of our own.
    grey_matter : GreyMatter or None
        Map that takes the place of our own.
    """

    path: Path
    relative: str
    subject: str
    session: str | None
    run: str | None
    entities: dict[str, str]
    suffix: str
    datatype: str
    age: Age = field(default_factory=Age)
    sex: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    dataset: str = 'raw'
    prepared: Prepared | None = None
    grey_matter: GreyMatter | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a prediction is made from."""
        given, map_ = self.prepared, self.grey_matter
        others = (given.t1w, given.mask) if given else ()
        maps = (map_.path, map_.report) if map_ else ()
        return (self.path, *others, *(path for path in maps if path))

    @property
    def stem(self) -> str:
        """File name without ``_<suffix>`` and extension, as it starts every derivative."""
        return source_stem(self.path.name)

    @property
    def sources(self) -> tuple[str, ...]:
        """BIDS URIs of all that is read, the one that rows name first."""
        given = (self.prepared, self.grey_matter)
        return (self.uri, *(uri for item in given if item for uri in item.uris))

    @property
    def uri(self) -> str:
        """BIDS URI of the image (``bids:raw:<relative>``) or table."""
        return f'bids:{self.dataset}:{self.relative}'

    @property
    def problem(self) -> str | None:
        """Why the file cannot be read, or None if it is there and not empty."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            if self.path.is_symlink():
                return (
                    f'{self.relative} is a link to content that is not here; '
                    'fetch it (for example `datalad get`)'
                )
            return f'{self.relative} does not exist'
        except OSError as error:
            return f'{self.relative} cannot be read ({error.strerror}); {_RIGHTS}'
        if size == 0:
            return f'{self.relative} is empty (0 bytes)'
        if not os.access(self.path, os.R_OK):
            return f'{self.relative} cannot be read (Permission denied); {_RIGHTS}'
        return None
