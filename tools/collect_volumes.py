"""Collect structure volumes from the derivatives of this program into one table.

    python tools/collect_volumes.py OUTPUT_DIR PARTICIPANTS_TSV MEASURED_TSV

The table has one row per T1w scan: names, the age at the scan (that of the session, where the
dataset gives one), the participant's group, the person's name in the normative tables where the
participants table gives a source, and all volumes in millilitres.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pandas as pd


def table_person(source: str, label: str) -> str | None:
    """Return the name of a person in the normative tables, or None."""
    found = re.search(r'ds\d{6}', source)
    if found:
        return f'{found.group()}_{label if label.startswith("sub-") else "sub-" + label}'
    return label if label.startswith('IXI') else None


def main() -> None:
    """Read all side files of structure maps and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('output_dir', 'participants_tsv', 'measured_tsv'):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    people = pd.read_csv(options.participants_tsv, sep='\t', na_values='n/a', dtype=str)
    people = people.set_index('participant_id')
    rows = []
    for side in sorted(options.output_dir.glob('sub-*/**/*_desc-structures_dseg.json')):
        person = side.name.split('_')[0]
        entry = people.loc[person]
        scan = side.name.split('_space-')[0]
        ages = pd.read_csv(side.with_name(f'{scan}_brainage.tsv'), sep='\t', na_values='n/a')
        rows.append(
            {
                'scan': scan,
                'participant_id': person,
                'age': float(ages['age'].iloc[0]),
                'group': entry['group'],
                'table_person': table_person(str(entry['source']), str(entry['source_id'])),
                **json.loads(side.read_text('utf-8'))['VolumesML'],
            }
        )
    pd.DataFrame(rows).to_csv(options.measured_tsv, sep='\t', index=False, na_rep='n/a')


if __name__ == '__main__':
    main()
