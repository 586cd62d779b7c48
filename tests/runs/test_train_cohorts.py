"""Several datasets train together, and one that nobody has seen judges."""

import pytest
from training_phantom import write_study

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.people import in_training
from bids_brainage.cli.request import parse
from bids_brainage.errors import OptionError
from bids_brainage.runs.train import run_train
from bids_brainage.tsv import read_tsv

pytestmark = pytest.mark.usefixtures('one_thread')

TABLE = """cohort\trole\tbids_dir\toutput_dir
young\ttrain\tyoung/bids\tyoung/out
far\tunseen\tfar/bids\tfar/out
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Two architectures trained on two cohorts, with a third unseen; all have equal labels."""
    root = tmp_path_factory.mktemp('cohorts')
    write_study(root, people=24)
    write_study(root / 'young', people=14, seed=1, name='Young', ages=(18, 40))
    write_study(root / 'far', people=9, seed=2, name='Far')
    (root / 'cohorts.tsv').write_text(TABLE)
    recipe = (root / 'recipe.toml').read_text()
    (root / 'recipe.toml').write_text(recipe + '[loss]\nweights = "cohorts"\n')
    run_train(settings(root, '--arch', 'resnet_only', 'vit_only', '--bundle-name', 'many'))
    return root


def settings(root, *options):
    words = (
        f'{root}/bids {root}/out train --model-dir {root}/models --work-dir {root}/work '
        f'--recipe {root}/recipe.toml --cohorts {root}/cohorts.tsv --device cpu --nprocs 1 '
        '--epochs 2'
    )
    return parse([*words.split(), *options], {})


def split_of(root):
    return read_tsv(root / 'out/logs/training/resnet_only.many/split.tsv')


def test_everybody_has_one_role_under_their_own_name(trained):
    rows = split_of(trained)
    assert len({row['source'] for row in rows}) == len(rows)
    roles = {row['participant_id']: row['role'] for row in rows}
    assert {roles[name] for name in roles if name.startswith('sub-far+')} == {'unseen'}
    assert roles['sub-01'] == roles['sub-young+01'] == 'longitudinal'
    assert roles['sub-far+01'] == 'unseen'
    own = {row['cohort'] for row in rows if row['role'] == 'training'}
    assert own == {'s0', 's1', 'young'}  # sites of the first dataset, name of the second


def test_tables_have_rows_of_the_unseen_cohort(trained):
    folder = trained / 'out/logs/training'
    compared = read_tsv(folder / 'comparison-many.tsv')
    unseen = {row['model']: row for row in compared if row['subset'] == 'unseen far'}
    assert set(unseen) == {'resnet_only.many', 'vit_only.many'}
    assert {row['n'] for row in unseen.values()} == {'13'}  # nine people, four came twice
    cohorts = read_tsv(folder / 'resnet_only.many/cohorts.tsv')
    counts = {row['role']: row['people'] for row in cohorts if row['cohort'] == 'all'}
    assert counts['unseen'] == '9' and counts['longitudinal'] == '8'
    assert {row['cohort'] for row in cohorts if row['role'] == 'unseen'} == {'all', 'far'}
    folds = read_tsv(folder / 'resnet_only.many/folds.tsv')
    assert [row['n'] for row in folds if row['role'] == 'unseen'] == ['9']
    page = (folder / 'resnet_only.many/report.html').read_text()
    assert 'Unseen' in page and 'Ages by role' in page and 'count-bar' in page


def test_the_bundle_knows_the_people_of_all_datasets(trained):
    training = load_bundle(trained / 'models/resnet_only.many').metadata['training']
    assert training['data'] == 'Phantoms, Young'
    by_role = {row['participant_id']: row['role'] for row in split_of(trained)}
    for name, dataset in (('', 'Phantoms'), ('young+', 'Young'), ('far+', 'Far')):
        told = {
            in_training(training, dataset, f'{k:02d}') == 'true': by_role[f'sub-{name}{k:02d}']
            for k in (6, 7, 8)
        }
        for learnt, role in told.items():
            assert learnt == (role in ('training', 'validation'))
    assert in_training(training, 'Elsewhere', '06') == 'unknown'


def test_a_generator_of_maps_takes_one_dataset(trained):
    options = ['--arch', 'aicbv_resattunet2d', '--bundle-name', 'x']
    config = parse(
        [f'{trained}/bids', f'{trained}/out', 'train', '--cohorts', f'{trained}/cohorts.tsv',
         *options], {}
    )  # fmt: skip
    with pytest.raises(OptionError, match='one dataset'):
        run_train(config)
