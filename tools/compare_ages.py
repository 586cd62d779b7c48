"""Compare the predicted ages of two output datasets.

    python tools/compare_ages.py OUT_A OUT_B [--tolerance YEARS]

Ends with status 1 when an image or model is in one only, or an age differs by more than the
tolerance.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

Ages = dict[tuple[str, str], str]


def read_ages(folder: Path) -> Ages:
    """Return the predicted age (text) of each source and model of an output dataset."""
    ages: Ages = {}
    for path in sorted(folder.glob('sub-*/**/*_brainage.tsv')):
        with path.open(encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file, delimiter='\t'):
                ages[row['source'], row['model']] = row['predicted_age']
    return ages


def differences(first: Ages, second: Ages, tolerance: float) -> list[str]:
    """Return one sentence for each disagreement beyond the tolerance (years)."""
    found = []
    for key in sorted(first.keys() | second.keys()):
        name = ' '.join(key)
        a, b = first.get(key), second.get(key)
        if a is None or b is None:
            found.append(f'{name}: only in the {"second" if a is None else "first"}')
        elif 'n/a' in (a, b):
            if a != b:
                found.append(f'{name}: {a} and {b}')
        elif not abs(float(a) - float(b)) <= tolerance:
            found.append(f'{name}: {a} and {b} years')
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description='Compare predicted ages of two outputs.')
    parser.add_argument('first', type=Path)
    parser.add_argument('second', type=Path)
    parser.add_argument('--tolerance', type=float, default=1e-3, metavar='YEARS')
    options = parser.parse_args(argv)
    first, second = read_ages(options.first), read_ages(options.second)
    found = differences(first, second, options.tolerance)
    if not first:
        found.append(f'there are no predictions in {options.first}')
    for line in found:
        sys.stdout.write(f'{line}\n')
    if not found:
        sys.stdout.write(f'{len(first)} predictions agree within {options.tolerance:g} years\n')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
