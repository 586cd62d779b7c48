"""The table of volumes of a scan, beside those of other people of the same age."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_brainage.outputs.files import write_json, write_tsv
from bids_brainage.outputs.provenance import MADE_FROM
from bids_brainage.outputs.tables import column_names, data_dictionary
from bids_brainage.segmentation import norms

FACTS = ('Segmentation', 'SkullStripped', 'VolumesML', MADE_FROM)
"""What the side file says of the measurement, so that the table can be made from it."""


def write_table(table: Path, found: Mapping[str, Any], scan: Mapping[str, Any]) -> None:
    """Write the table of volumes with its side file; one that says the same is left alone.

    Parameters
    ----------
    table : Path
        The ``.tsv`` file.
    found : mapping
        ``VolumesML`` (region → mL), ``Segmentation`` (the network), ``SkullStripped`` and, if
        known, ``MadeFrom`` and ``Sources`` (BIDS URIs; that of the scan if not given).
    scan : mapping
        ``age`` (years), ``age_censored``, ``sex`` and ``source`` (BIDS URI) of the scan.
    """
    age = None if scan['age_censored'] else scan['age']
    stripped = found['SkullStripped']
    reason = norms.why_not(found['Segmentation'], age, skull_stripped=stripped)
    rows = norms.volume_rows(
        found['VolumesML'], age, scan['sex'], known=not reason, whole=not stripped
    )
    sources = found.get('Sources') or [scan['source']]
    columns = data_dictionary('volumes')
    columns['region']['Levels'] = {s.name: s.title for s in norms.load_structures()}
    facts = {name: found[name] for name in FACTS if name in found}
    # the side file first: what it says of an absent table counts for nothing
    write_json(
        table.with_suffix('.json'),
        {**columns, **facts, 'WithoutPercentiles': reason, 'Sources': sources},
    )
    write_tsv(table, rows, column_names('volumes'))
