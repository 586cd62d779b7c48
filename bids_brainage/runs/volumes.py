"""The table of volumes of a scan, from its images or, where these are not kept, from itself."""

from __future__ import annotations

from pathlib import Path

from bids_brainage.dataset.scan import Scan
from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.provenance import MADE_FROM
from bids_brainage.segmentation.table import write_table
from bids_brainage.workflows.images import image_path, volumes_path
from bids_brainage.workflows.naming import scan_columns


def write_volumes(output_dir: Path, scan: Scan, *, images: bool = True) -> None:
    """Bring the table up to date with age and sex that the dataset gives now, if there is one.

    Parameters
    ----------
    output_dir : Path
    scan : Scan
    images : bool
        Whether the images of this scan are kept: the volumes then come from the side file of
        its regions, if it has regions.
    """
    regions = side_file(image_path(output_dir, scan, 'regions'))
    table = volumes_path(output_dir, scan)
    if regions.is_file() and (images or not table.is_file()):
        found = read_json(regions)
        made = read_json(side_file(image_path(output_dir, scan, 't1w'))).get(MADE_FROM)
        found |= {} if made is None else {MADE_FROM: made}
    else:
        found = read_json(side_file(table))
    if 'VolumesML' in found:
        write_table(table, found, scan_columns(scan))
