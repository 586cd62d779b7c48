"""The table of volumes of a scan, beside those of other people of the same age."""

from __future__ import annotations

from pathlib import Path

from bids_brainage.dataset.scan import Scan
from bids_brainage.names import side_file
from bids_brainage.outputs.files import read_json, write_json, write_tsv
from bids_brainage.outputs.tables import column_names, data_dictionary
from bids_brainage.segmentation import norms
from bids_brainage.workflows.images import image_path, volumes_path


def write_volumes(output_dir: Path, scan: Scan) -> None:
    """Write the table from the side file of the regions, if the scan has regions.

    It follows the age and the sex that the dataset gives now; a table that says the same is left
    alone.

    Parameters
    ----------
    output_dir : Path
    scan : Scan
    """
    regions = side_file(image_path(output_dir, scan, 'regions'))
    if not regions.is_file():
        return
    found = read_json(regions)
    age = None if scan.age.censored else scan.age.years
    stripped = found['SkullStripped']
    reason = norms.why_not(found['Segmentation'], age, skull_stripped=stripped)
    rows = norms.volume_rows(
        found['VolumesML'], age, scan.sex, known=not reason, whole=not stripped
    )
    table = volumes_path(output_dir, scan)
    write_tsv(table, rows, column_names('volumes'))
    columns = data_dictionary('volumes')
    columns['region']['Levels'] = {s.name: s.title for s in norms.load_structures()}
    facts = {
        'Segmentation': found['Segmentation'],
        'SkullStripped': stripped,
        'WithoutPercentiles': reason,
        'Sources': [scan.uri],
    }
    write_json(side_file(table), {**columns, **facts})
