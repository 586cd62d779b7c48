"""The golden people on disk, as the participant level leaves them."""

import golden as g

from bids_brainage.outputs.tables import brainage_row, write_brainage


def write_people(root, n=60, models=('net.a', 'net.b')):
    """Write the golden people to disk: baseline, retest and follow-up session."""
    facts = {m: {'Version': '1'} for m in models}
    facts[models[-1]] = {'Version': '1', 'Networks': {'t1w': models[0], 'aicbv': models[-1]}}
    sessions = ((g.y, g.p), (g.y, g.p_retest), (g.y_follow, g.p_follow))
    for k in range(n):
        for number, (age, predicted) in enumerate(sessions, 1):
            stem = f'sub-{k:03d}_ses-{number}'
            rows = [
                brainage_row(
                    participant_id=f'sub-{k:03d}',
                    session_id=f'ses-{number}',
                    source=f'bids:raw:sub-{k:03d}/ses-{number}/anat/{stem}_T1w.nii.gz',
                    modality='T1w',
                    model=model,
                    model_version='1',
                    age=float(age[k]),
                    age_source=f'sub-{k:03d}/sub-{k:03d}_sessions.tsv',
                    age_censored=False,
                    sex='M' if g.sex[k] else 'F',
                    predicted_age=float(predicted[k] if model == 'net.a' else g.second[k]),
                    status='ok',
                )
                for model in models
            ]
            path = root / f'sub-{k:03d}' / f'ses-{number}' / 'anat' / f'{stem}_brainage.tsv'
            path.parent.mkdir(parents=True)
            write_brainage(path, rows, models=facts)
