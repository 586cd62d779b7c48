"""Say how this program's structure volumes relate to those of other measures.

    python tools/match_measures.py MEASURED_TSV --normative NORMATIVE_DIR
    python tools/match_measures.py MEASURED_TSV --truth TRUTH_TSV

``MEASURED_TSV`` comes from ``tools/collect_volumes.py``.  The first form compares people who are
in the tables of real people (FreeSurfer, DLMUSE) as well; the second compares generated heads
with their true volumes (columns ``scan`` and one for each structure, ml).  Printed for each
structure: n, Pearson's r of log volumes, slope (ours on theirs), median ratio ours / theirs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from fit_volumes import STRUCTURES, dlmuse_volumes, freesurfer_volumes

PLAUSIBLE = 1.6
"""FreeSurfer's cortex fails on skull-stripped input; ratios beyond this factor are left out."""


def real_pairs(measured: pd.DataFrame, folder: Path) -> dict[str, tuple[pd.DataFrame, ...]]:
    """Return ours and theirs, row by row, for each of the two measures."""
    out = {}
    for name, table in (
        ('FreeSurfer', freesurfer_volumes(folder)),
        ('DLMUSE', dlmuse_volumes(folder)),
    ):
        theirs = table.drop_duplicates('person').set_index('person')
        ours = measured[measured['table_person'].isin(theirs.index)]
        out[name] = (ours[STRUCTURES], theirs.loc[ours['table_person'], STRUCTURES])
    return out


def rows(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each structure."""
    out = []
    for name in STRUCTURES:
        x, y = np.log(theirs[name].to_numpy(float)), np.log(ours[name].to_numpy(float))
        keep = np.abs(y - x - np.median(y - x)) < np.log(PLAUSIBLE)
        keep &= np.abs(y - x) < np.log(2 * PLAUSIBLE)
        x, y = x[keep], y[keep]
        enough = len(x) > 2
        out.append({
            'structure': name,
            'n': len(x),
            'r': round(float(np.corrcoef(x, y)[0, 1]), 3) if enough else None,
            'slope': round(float(np.polyfit(x, y, 1)[0]), 2) if enough else None,
            'ratio': round(float(np.exp(np.median(y - x))), 2) if len(x) else None,
        })  # fmt: skip
    return pd.DataFrame(out)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('measured_tsv', type=Path)
    parser.add_argument('--normative', type=Path)
    parser.add_argument('--truth', type=Path)
    options = parser.parse_args()
    measured = pd.read_csv(options.measured_tsv, sep='\t', na_values='n/a')
    pairs = real_pairs(measured, options.normative) if options.normative else {}
    if options.truth:
        truth = pd.read_csv(options.truth, sep='\t').set_index('scan')
        ours = measured[measured['scan'].isin(truth.index)]
        pairs['truth of generated heads'] = (ours, truth.loc[ours['scan']])
    for name, (ours, theirs) in pairs.items():
        sys.stdout.write(f'\n{name}\n{rows(ours, theirs).to_string(index=False)}\n')


if __name__ == '__main__':
    main()
