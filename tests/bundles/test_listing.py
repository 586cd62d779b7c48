"""What ``--list-models`` tells before somebody chooses."""

import pytest

from bids_brainage.bundles.bundle import load_bundle
from bids_brainage.bundles.listing import COLUMNS, details_text, model_rows, models_text
from bids_brainage.bundles.places import DEFAULT_MODELS, model_dirs
from bids_brainage.errors import BundleError

WIDTH = 100
PACKAGED = model_dirs(None)[-1:]


def test_table_fits_the_terminal_and_the_default_is_first():
    lines = models_text(PACKAGED).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split() == list(COLUMNS)
    assert lines[1].split()[:3] == [DEFAULT_MODELS[0], 'default', '184']
    assert sum(' default ' in line for line in lines) == 1


def test_rows_of_a_broken_bundle_and_of_architectures(tmp_path):
    (tmp_path / 'sfcn.mine').mkdir()
    (tmp_path / 'sfcn.mine' / 'metadata.json').write_text('{')
    rows = {row['name']: row for row in model_rows([tmp_path])}
    assert rows['sfcn.mine']['status'] == 'unusable'
    assert rows['vgg8']['status'] == 'trainable only'
    assert 'sfcn' not in rows


@pytest.mark.parametrize('name', [path.name for path in PACKAGED[0].iterdir() if path.is_dir()])
def test_details_hold_licence_training_and_limits(name):
    text = details_text(name, PACKAGED)
    assert max(map(len, text.splitlines())) <= WIDTH
    metadata = load_bundle(PACKAGED[0] / name).metadata
    flat = ' '.join(text.split())
    for words in (
        metadata['license'],
        metadata['limitations'],
        f'n {metadata["training"]["n"]}, ages ',
        metadata['reference']['doi'] or metadata['reference']['text'],
        metadata['validation'][0]['dataset'],
    ):
        assert words in flat
    assert (', the default' in text) is (name in DEFAULT_MODELS)


def test_unknown_model_is_told_with_what_there_is():
    with pytest.raises(BundleError, match=r"No model 'nothing.here'. Available: .*volumes.adults"):
        details_text('nothing.here', PACKAGED)
