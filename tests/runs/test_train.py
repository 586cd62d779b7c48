"""`train` from the command line: derivatives and ages become a bundle that predicts."""

import logging
import re

import nibabel as nib
import numpy as np
import pytest
from training_phantom import RECIPE, STUDY_AFFINE, STUDY_GRID, write_study

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.check import check_bundle
from bids_brainage.bundles.people import in_training
from bids_brainage.cli.request import parse
from bids_brainage.errors import MissingInputError, OptionError
from bids_brainage.names import derivative_path
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.runs.train import run_train
from bids_brainage.runs.training_job import final_recipe
from bids_brainage.training import cache
from bids_brainage.training.errors import TrainingInputError
from bids_brainage.training.estimate import memory_gb, try_step
from bids_brainage.training.prepare import input_block
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def study(tmp_path, monkeypatch):
    """40 people, four of them with a second session, and a recipe for tiny grids."""
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*options):
    common = '--model-dir models --work-dir work --recipe recipe.toml --device cpu --nprocs 1'
    return parse(['bids', 'out', 'train', *common.split(), *options], {})


def test_circle_closes_and_architectures_are_compared(study, capsys):
    from bids_brainage.inference.predict import predict

    arches = ['resnet_only', 'vit_only']
    options = ['--arch', *arches, '--bundle-name', 'mine', '--epochs', '4']
    assert run_train(settings(*options, '--reference-group', 'group=CN')) == 0
    text = capsys.readouterr().out
    assert re.search(r'^all +resnet_only\.mine +5 ', text, re.MULTILINE)
    assert re.search(r'^longitudinal +vit_only\.mine +4 ', text, re.MULTILINE)
    folders = [study / 'out/logs/training' / f'{arch}.mine' for arch in arches]
    first, second = (
        [(r['source'], r['role']) for r in read_tsv(f / 'split.tsv') if r['role'] != 'excluded']
        for f in folders
    )
    assert first == second
    roles = {row['source']: row['role'] for row in read_tsv(folders[0] / 'split.tsv')}
    assert roles['bids:raw:sub-39/anat/sub-39_T1w.nii.gz'] == 'excluded'
    assert roles['bids:raw:sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz'] == 'longitudinal'
    check_comparison(folders[0].parent, [f'{arch}.mine' for arch in arches])
    report = (folders[0] / 'report.html').read_text()
    assert 'resnet_only.mine' in report and '<svg' in report and 'simulated' in report
    path = study / 'models/resnet_only.mine'
    bundle = load_bundle(path)
    assert check_bundle(path).passed, str(check_bundle(path))
    known = {  # who trains or chooses the epoch, who tests, who comes later
        row['participant_id']: row['role'] for row in read_tsv(folders[0] / 'split.tsv')
    }
    for person, role in known.items():
        expected = 'true' if role in ('training', 'validation') else 'false'
        label = person.removeprefix('sub-')
        assert in_training(bundle.metadata['training'], 'Phantoms', label) == expected
    assert bundle.metadata['training']['n'] == 24 and bundle.metadata['training']['simulated']
    assert bundle.input['shape'] == [21, 25, 21] and bundle.input['voxel_size_mm'] == [8, 8, 8]
    assert 'resnet_only.mine' in (path / 'README.md').read_text()
    rows = read_tsv(folders[0] / 'predictions.tsv')
    row = next(row for row in rows if row['participant_id'] == 'sub-20')
    derivative = study / 'out' / derivative_path(
        {'sub': '20', 'space': DEFAULT_SPACE, 'res': '1', 'label': 'GM', 'desc': 'modulated',
         'suffix': 'probseg'}, 'anat'
    )  # fmt: skip
    said = predict(bundle, {'gm_modulated': derivative}, device='cpu')
    # The cache holds half precision.
    assert said.age == pytest.approx(float(row['predicted_age']), abs=0.05)
    with pytest.raises(OptionError, match='exists already'):
        run_train(settings(*options))


def check_comparison(folder, models):
    """The page shows each model's dots on axes of one range, and the numbers of the table."""
    page = (folder / 'comparison-mine.html').read_text()
    for role, scans in (('test', 5), ('longitudinal', 8)):
        (part,) = re.findall(rf'true age: {role}</h2>.*?</section>', page, re.DOTALL)
        assert re.findall('<h4>(.*?)</h4>', part) == models
        assert part.count(f'{scans} scans') == 2
        ticks = [
            re.findall(r'text-anchor="end"[^>]*>(\d+)<', svg) for svg in part.split('<svg')[1:]
        ]
        assert ticks[0] == ticks[1] != []
    for row in read_tsv(folder / 'comparison-mine.tsv'):
        assert row['model'] in models
        if row['n'] != '0':
            error = float(row['made'] if row['mae'] == 'n/a' else row['mae'])
            assert re.search(
                rf'{row["model"]}</th><td>{row["n"]}</td>.*<td>{error:.2f}</td>', page
            )
    assert all((folder / link).is_file() for link in re.findall(r'href="([^"]+)"', page))


def test_split_is_accepted_back_and_resume_is_asked_for(study):
    options = ['--arch', 'resnet_only', '--epochs', '1']
    assert run_train(settings(*options, '--bundle-name', 'one')) == 0
    split = study / 'out/logs/training/resnet_only.one/split.tsv'
    swapped = split.read_text().replace('validation', 'x').replace('\ttest\t', '\tvalidation\t')
    (study / 'again.tsv').write_text(swapped.replace('x', 'test'))
    assert run_train(settings(*options, '--bundle-name', 'two', '--split', 'again.tsv')) == 0
    before, after = (
        {r['source']: r['role'] for r in read_tsv(path)}
        for path in (split, study / 'out/logs/training/resnet_only.two/split.tsv')
    )
    chose = {source for source, role in before.items() if role == 'validation'}
    assert chose == {source for source, role in after.items() if role == 'test'} != set()
    (study / 'models/resnet_only.one').rename(study / 'gone')
    with pytest.raises(OptionError, match='--resume'):
        run_train(settings(*options, '--bundle-name', 'one'))
    assert run_train(settings(*options, '--bundle-name', 'one', '--resume')) == 0
    assert load_bundle(study / 'models/resnet_only.one')


def test_all_input_problems_are_told_before_training(study):
    table = study / 'bids/participants.tsv'
    lines = table.read_text().splitlines()
    lines[10] = re.sub(r'\t[\d.]+\t', '\tn/a\t', lines[10], count=1)
    lines[11] = re.sub(r'\t[\d.]+\t', '\t89+\t', lines[11], count=1)
    table.write_text('\n'.join(lines) + '\n')

    def derivative(subject):
        return next((study / 'out' / f'sub-{subject}').rglob('*probseg.nii.gz'))

    derivative('12').unlink()
    derivative('13').rename(
        derivative('13').with_name(derivative('13').name.replace(DEFAULT_SPACE, 'MNI152NLin6Asym'))
    )
    spoilt = np.full(STUDY_GRID, np.nan, np.float32)
    nib.save(nib.Nifti1Image(spoilt, STUDY_AFFINE), derivative('14'))
    nib.save(nib.Nifti1Image(np.zeros(STUDY_GRID, np.float32), STUDY_AFFINE), derivative('15'))
    options = ['--arch', 'resnet_only', '--bundle-name', 'x', '--epochs', '1']
    with pytest.raises(TrainingInputError) as caught:
        run_train(settings(*options))
    text = str(caught.value)
    for words in (
        'no age',
        '89+',
        'desc-modulated_probseg.nii.gz is not in',
        'another space',
        'constant',
        'NaN',
    ):
        assert words in text, text
    assert 'on_problem' in text and caught.value.exit_code == 65
    assert not (study / 'models/resnet_only.x').exists()
    (study / 'recipe.toml').write_text(
        RECIPE.replace('[data]', '[data]\non_problem = "leave_out"')
    )
    assert run_train(settings(*options)) == 0
    rows = read_tsv(study / 'out/logs/training/resnet_only.x/split.tsv')
    assert sum(row['role'] == 'excluded' for row in rows) >= 5


def test_too_few_people_and_no_derivatives(study):
    options = ['--arch', 'resnet_only', '--bundle-name', 'x', '--participant-label']
    with pytest.raises(TrainingInputError, match='at least 8 are needed'):
        run_train(settings(*options, '10', '11', '12'))
    for folder in (study / 'out').glob('sub-*'):
        folder.rename(study / f'away-{folder.name}')
    with pytest.raises(MissingInputError, match='participant level first'):
        run_train(settings(*options, '10', '11', '12'))


def test_everybody_scanned_twice(study):
    twice = [f'{k:02d}' for k in range(4)]
    options = ['--arch', 'resnet_only', '--bundle-name', 'x', '--participant-label', *twice]
    with pytest.raises(TrainingInputError, match='reserve_repeated = false'):
        run_train(settings(*options))
    (study / 'recipe.toml').write_text(RECIPE + '[split]\nreserve_repeated = false\n')
    with pytest.raises(TrainingInputError, match='at least 8 are needed'):
        run_train(settings(*options))


def test_what_cannot_train_is_told_before_any_input_is_read(study):
    options = ['--arch', 'vgg8', '--bundle-name', 'x']
    (study / 'recipe.toml').write_text('[data]\ncoarsen = 8\n')
    with pytest.raises(OptionError, match='coarsen = 8 is too much for vgg8'):
        run_train(settings(*options))
    (study / 'recipe.toml').write_text('[data]\ncoarsen = 5\n[run]\nbatch_size = 5\n')
    with pytest.raises(OptionError, match='batch_size 5 cannot be shared by 2'):
        run_train(settings(*options, '--devices', '2'))
    assert not (study / 'work').exists() and not (study / 'models').exists()
    (study / 'models').write_text('a file')
    with pytest.raises(SystemExit):
        settings(*options)


def test_dry_run_writes_nothing_and_says_what_training_says(study, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('bids_brainage'), 'propagate', True)
    caplog.set_level(IMPORTANT, 'bids_brainage')
    before = sorted(study.rglob('*'))
    options = ['--arch', 'resnet_only', '--bundle-name', 'x', '--epochs', '1', '--mem-gb', '4']
    config = settings(*options, '--dry-run')
    assert run_train(config) == 0
    assert sorted(study.rglob('*')) == before
    dry = head_of(caplog)
    assert dry['bids_brainage'] == config.environment.version
    assert dry['dataset'] == str(study / 'bids')
    assert dry['models'] == f'resnet_only.x, in {study / "models"}'
    assert 'device cpu (cpu), seed 0' in dry['resources']
    assert dry['split'] == (
        '25 to train on, 6 to choose the epoch, 5 to test, 4 to judge change (people)'
    )
    assert re.search(r'GB of disk.*GB of memory.*an epoch.* for 1 epochs', dry['estimate'])
    caplog.clear()
    monkeypatch.setattr(cache, 'PROGRESS_SECONDS', 0.0)
    assert run_train(settings(*options)) == 0
    real = head_of(caplog)
    same = ('bids_brainage', 'dataset', 'output', 'models', 'resources', 'split')
    assert {name: real[name] for name in same} == {name: dry[name] for name in same}
    inputs = [m for m in caplog.messages if m.startswith('inputs ')]
    assert any(re.search(r'of \d+ scans are prepared', m) for m in inputs)
    assert any(re.search(r'20 of \d+ scans, about 0 min left', m) for m in inputs)
    assert caplog.messages.index(inputs[-1]) < next(
        i for i, m in enumerate(caplog.messages) if 'epoch 1 of at most 1' in m
    )


def head_of(caplog):
    """Return the first line of each kind, by its first word."""
    found = {}
    for message in caplog.messages:
        name, _, rest = message.partition(' ')
        found.setdefault(name, rest.strip())
    return found


def test_options_change_the_recipe(study):
    config = settings('--arch', 'vgg8', '--bundle-name', 'x', '--folds', '3', '--epochs', '7')
    (study / 'recipe.toml').write_text('[loss]\nmain = "mse"\n')
    recipe = final_recipe(config, 'vgg8')
    assert (recipe.split.method, recipe.split.folds, recipe.run.epochs) == ('folds', 3, 7)
    assert recipe.loss.main == 'mse' and recipe.run.batch_size == 3
    (study / 'recipe.toml').write_text('[loss]\nmian = "mse"\n')
    with pytest.raises(OptionError, match='Unknown key mian'):
        final_recipe(config, 'vgg8')


def test_options_of_a_model_go_to_the_architectures_that_have_them(study):
    arches = ('resnet_crossvit', 'resnet_only', 'vit_only')
    config = settings('--arch', *arches, '--bundle-name', 'x')
    text = '[model]\ncot = false\ndropout = 0.2\n[model.vit_only]\ndepth = 6\ndropout = 0.0\n'
    (study / 'recipe.toml').write_text(text)
    found = [final_recipe(config, arch).model for arch in arches]
    assert found[0]['cot'] is False and found[0]['dropout'] == 0.2
    assert found[0]['token_keep_rate'] == 1.0  # the paper's
    assert found[1] == {'cot': False, 'dropout': 0.2}
    assert found[2] == {'depth': 6, 'dropout': 0.0}
    for wrong, said in (
        ('[model]\ncott = false\n', 'model.cott: .* has no such option'),
        ('[model.vit_only]\ncot = false\n', 'model.cot: .* has no such option'),
        ('[model.vgg8]\ncot = false\n', r'\[model.vgg8\] has no effect, --arch is resnet_cr'),
    ):
        (study / 'recipe.toml').write_text(wrong)
        with pytest.raises(OptionError, match=said):
            [final_recipe(config, arch) for arch in arches]


def test_newborns_take_part_in_training(study):
    table = study / 'bids/participants.tsv'
    table.write_text(re.sub(r'(sub-20)\t[\d.]+', r'\1\t0', table.read_text()))
    assert run_train(settings('--arch', 'resnet_only', '--bundle-name', 'x', '--epochs', '1')) == 0
    rows = read_tsv(study / 'out/logs/training/resnet_only.x/predictions.tsv')
    (newborn,) = [row for row in rows if row['participant_id'] == 'sub-20']
    assert float(newborn['age']) == 0 and newborn['role'] != 'excluded'


def test_option_problems_are_told_together(study, capsys):
    wrong = '--arch nonsense --bundle-name a.b --epochs 0 --split no'
    with pytest.raises(SystemExit) as caught:
        parse(['bids', 'out', 'train', *wrong.split()], {})
    assert caught.value.code == 2
    text = capsys.readouterr().err
    for words in ('--arch: expected amagenet', '--bundle-name: expected', '--epochs', '--split'):
        assert words in text
    with pytest.raises(SystemExit):
        parse(['bids', 'out', 'train'], {})
    text = capsys.readouterr().err
    assert '--arch: needed' in text and '--bundle-name: needed' in text


def test_little_memory_trains_in_parts_and_the_bundle_says_so(study, caplog):
    options = ['--arch', 'resnet_only', '--bundle-name', 'small', '--epochs', '1']
    recipe = final_recipe(settings(*options), 'resnet_only')
    step = try_step('resnet_only', recipe, input_block('resnet_only', recipe))
    limit = memory_gb(step, 3) + step.row_gb / 2
    with caplog.at_level(logging.INFO, logger='bids_brainage'):
        assert run_train(settings(*options, '--mem', f'{limit * 1024**2:.0f}K')) == 0
    assert 'in parts of at most 3' in caplog.text
    training = load_bundle(study / 'models/resnet_only.small').metadata['training']
    assert training['scans_at_once'] == 3
