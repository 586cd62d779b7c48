"""40 controls and 20 patients on disk, as the participant level leaves them.

Patients look 7 years older; five controls have scans that nobody should use, which look 40 years
older, and one a caution.  Ages regress to the middle, as most models make them do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bids_brainage.outputs.tables import brainage_row, write_brainage

CONTROLS, PATIENTS = 40, 20
EFFECT, SPREAD, SLOPE = 7.0, 5.0, 0.85
DAMAGE, DAMAGED = 40.0, 5
STOP, CAUTION = 'field_of_view_cut(31 cm²)', 'anisotropic'
GROUPS = ('control', 'Alzheimer’s patient')
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="300" height="150">
<circle cx="150" cy="75" r="60" fill="#888"/></svg>"""


def cohort(seed: int = 0) -> pd.DataFrame:
    """Draw the cohort: one row per person with the columns of ``_brainage.tsv``, dx and mmse."""
    rng = np.random.default_rng(seed)
    n = CONTROLS + PATIENTS
    patient = np.arange(n) >= CONTROLS
    age = rng.uniform(50, 85, n)
    noise = rng.normal(0, SPREAD, n)
    bad = np.arange(n) < DAMAGED
    predicted = SLOPE * age + (1 - SLOPE) * 65 + noise + EFFECT * patient + DAMAGE * bad
    names = [f'sub-{k + 1:02d}' for k in range(n)]
    flags = np.full(n, None, dtype=object)
    flags[:DAMAGED], flags[DAMAGED] = STOP, CAUTION
    return pd.DataFrame(
        {
            'participant_id': names,
            'session_id': None,
            'run': None,
            'source': [f'bids:raw:{x}/anat/{x}_T1w.nii.gz' for x in names],
            'modality': 'T1w',
            'model': 'net.a',
            'model_version': '1',
            'age': age,
            'sex': np.where(np.arange(n) % 2, 'M', 'F'),
            'predicted_age': predicted,
            'interval_low': predicted - 9,
            'interval_high': predicted + 9,
            'interval_level': 0.9,
            'qc_flag': flags,
            'status': 'ok',
            'dx': np.where(patient, GROUPS[1], GROUPS[0]),
            'mmse': np.round(29 - 5.0 * patient - 0.2 * noise + rng.normal(0, 1, n), 1),
        }
    )


def write_cohort(root: Path, data: pd.DataFrame | None = None) -> None:
    """Write ``root/bids`` (tables only) and ``root/out`` with a page for each person."""
    data = cohort() if data is None else data
    (root / 'bids').mkdir(parents=True)
    described = data[['participant_id', 'dx', 'mmse']]
    described.to_csv(root / 'bids' / 'participants.tsv', sep='\t', index=False)
    for row in data.drop(columns=['dx', 'mmse']).to_dict('records'):
        who = row['participant_id']
        cells = {k: None if v is None or v != v else v for k, v in row.items()}
        write_brainage(
            root / 'out' / who / 'anat' / f'{who}_brainage.tsv', [brainage_row(**cells)]
        )
        (root / 'out' / f'{who}.html').write_text(f'<title>{who}</title>')
        picture = root / 'out' / who / 'figures' / f'{who}_desc-mask_T1w.svg'
        picture.parent.mkdir()
        picture.write_text(PICTURE)
