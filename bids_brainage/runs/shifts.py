"""Shifts of a run that bring tables of other programs to the scale of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.contract import SITE_SPREAD
from bids_brainage.dataset.measured import MeasuredScan

if TYPE_CHECKING:
    from bids_brainage.inputs.harmonise import Site, SiteShift


@dataclass(frozen=True)
class Harmonisation:
    """Shifts of a run; without sites nobody has one.

    Attributes
    ----------
    sites : mapping
        (bundle, program, site) → people of known age.
    site_of : mapping
        URI of a table → its site.
    """

    sites: Mapping[tuple[str, str, str], Site] = field(default_factory=dict)
    site_of: Mapping[str, str] = field(default_factory=dict)

    def shift_of(self, scan: MeasuredScan, bundle: Bundle) -> SiteShift | None:
        """Return the shift of a visit's features; None if nothing is known of the site."""
        site = self.sites.get((bundle.name, scan.program, self.site_of.get(scan.uri, '')))
        spread = bundle.metadata['training'].get(SITE_SPREAD)
        return site.shift_of(scan.subject, spread) if site and spread else None
