"""People from whom a model has learnt are never mixed with those whom it has not seen."""

import logging

import numpy as np
import pytest

from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError, UnusableImageError
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.outputs.tables import brainage_row, write_brainage
from bids_brainage.runs.group import run_group
from bids_brainage.tsv import read_tsv

MODEL, PEOPLE, UNSEEN = 'net.mine', 40, 9


def uri(k):
    return f'bids:raw:sub-{k:02d}/anat/sub-{k:02d}_T1w.nii.gz'


@pytest.fixture
def study(tmp_path):
    """40 people; the model is 1 year off in the 31 it has learnt from and 8 in the others."""
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    bids.mkdir()
    ages = np.linspace(20, 80, PEOPLE)
    lines = ['participant_id\tage']
    folder = out / 'logs/training' / MODEL
    folder.mkdir(parents=True)
    held_out = ['participant_id\tsource\tfold\trole\tage\tpredicted_age']
    for k, age in enumerate(ages.tolist()):
        seen, sign = k % 40 >= UNSEEN, 1 if k % 2 else -1
        row = brainage_row(
            participant_id=f'sub-{k:02d}', source=uri(k), model=MODEL, model_version='1',
            modality='T1w', age=age, age_source='participants', age_censored=False, sex='F',
            predicted_age=age + sign * (1 if seen else 8), interval_low=age - 9,
            interval_high=age + 9, interval_level=0.9, status='ok',
            in_training='true' if seen else 'false',
            qc_flag='anisotropic;learnt_from' if seen else None,
        )  # fmt: skip
        write_brainage(
            out / f'sub-{k:02d}/anat/sub-{k:02d}_brainage.tsv', [row], models={MODEL: {}}
        )
        lines.append(f'sub-{k:02d}\t{age}')
        for fold in (1, 2):
            role = 'test' if seen and k % 2 == fold - 1 else 'training'
            told = age + (6 * sign if role == 'test' else 0.5)
            held_out.append(f'sub-{k:02d}\t{uri(k)}\t{fold}\t{role}\t{age}\t{told}')
    (bids / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    (folder / 'predictions.tsv').write_text('\n'.join(held_out) + '\n')
    return bids, out


def run(study, *options):
    bids, out = study
    fixed = ['-w', str(out / '.work'), '--saliency', 'none']
    return run_group(parse([str(bids), str(out), 'group', *fixed, *options], {}))


def accuracy(study, subset):
    rows = read_tsv(study[1] / 'group_accuracy.tsv')
    found = [r for r in rows if r['subset'] == subset and r['corrected'] == 'false']
    return (int(found[0]['n']), round(float(found[0]['mae']), 3)) if found else None


def test_only_people_whom_the_model_has_not_seen_count(study):
    assert run(study) == 0
    assert accuracy(study, 'all') == (UNSEEN, 8.0)
    assert accuracy(study, 'training') == (PEOPLE - UNSEEN, 1.0)
    left_out = read_tsv(study[1] / 'group_exclusions.tsv')
    reasons = [row['reason'] for row in left_out]
    assert reasons == ['the model has learnt from this person'] * (PEOPLE - UNSEEN)
    page = (study[1] / 'group.html').read_text()
    assert '31 images of 31 people from whom this model has learnt' in page
    assert '--predictions' in page


def test_with_the_table_of_the_training_everybody_counts_as_held_out(study):
    path = study[1] / 'logs/training' / MODEL / 'predictions.tsv'
    assert run(study, '--predictions', str(path)) == 0
    mae = (UNSEEN * 8 + (PEOPLE - UNSEEN) * 6) / PEOPLE
    assert accuracy(study, 'all') == (PEOPLE, round(mae, 3))
    assert accuracy(study, 'training') is None
    rows = read_tsv(study[1] / 'group_accuracy.tsv')
    apart = {r['level']: r for r in rows if r['subset'] == 'training_role'}
    assert (apart['test']['n'], float(apart['test']['mae'])) == ('31', pytest.approx(6))
    assert (apart['unseen']['n'], float(apart['unseen']['mae'])) == ('9', pytest.approx(8))
    row = next(r for r in read_tsv(study[1] / 'group_brainage.tsv') if r['source'] == uri(20))
    assert float(row['brain_age_gap']) == pytest.approx(-6) and row['in_training'] == 'false'
    assert row['qc_flag'] == 'anisotropic'
    assert row['interval_low'] == 'n/a'  # it was that of the whole model's age


def test_nobody_is_left_and_the_log_says_what_to_do(study, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('bids_brainage'), 'propagate', True)
    caplog.set_level(IMPORTANT, 'bids_brainage')
    labels = [f'{k:02d}' for k in range(UNSEEN, PEOPLE)]
    assert run(study, '--participant-label', *labels) == UnusableImageError.exit_code
    assert '--predictions logs/training/MODEL/predictions.tsv' in caplog.text


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('net.other', None, 'has a prediction of net.other.*which has the models net.mine'),
        (MODEL, 'age\tsex\n3\tF\n', 'no column source, role, predicted_age'),
    ],
)
def test_wrong_tables_are_refused(study, name, text, words):
    folder = study[1] / 'logs/training' / name
    folder.mkdir(exist_ok=True)
    good = (study[1] / 'logs/training' / MODEL / 'predictions.tsv').read_text()
    (folder / 'predictions.tsv').write_text(good if text is None else text)
    with pytest.raises(OptionError, match=words):
        run(study, '--predictions', str(folder / 'predictions.tsv'))


def test_a_table_that_is_not_there_is_told_at_once(study, capsys):
    with pytest.raises(SystemExit) as caught:
        run(study, '--predictions', 'nothing.tsv')
    assert caught.value.code == 2
    assert 'A training writes logs/training/MODEL' in ' '.join(capsys.readouterr().err.split())
