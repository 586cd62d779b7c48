"""The command that brings weights of others: what it lists, and what it refuses at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bids_brainage.bundles.convert.catalogue import published
from bids_brainage.bundles.convert.read import identify
from bids_brainage.cli.main import main
from bids_brainage.cli.request import parse
from bids_brainage.errors import MissingInputError

RECORDS = published().values()
HEAVY = """
import sys
from bids_brainage.cli.main import main
main(['convert'])
heavy = {'torch', 'numpy', 'h5py', 'nibabel', 'nipype', 'pandas'} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_every_network_is_listed_with_licence_and_file(arguments, capsys):
    try:
        assert main(['convert', *arguments]) == 0
    except SystemExit as end:
        assert end.code == 0
    text = capsys.readouterr().out
    for record in RECORDS:
        assert f'\n{record.name}: ' in text
        assert record.licence in text
        assert record.reference['doi'] in text
        assert all(str(file) in text for file in record.files)
    assert text.count('not run with the published weights') == len(RECORDS)


def test_the_list_imports_nothing_heavy():
    package = str(Path(__file__).parents[2])
    process = subprocess.run(
        [sys.executable, '-c', HEAVY], env={**os.environ, 'PYTHONPATH': package},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stderr.strip() == '[]'


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['nothing'], ['expected one of sfcn', "found 'nothing'", './convert']),
        (['sfcn'], ['expected 1 FILE', 'run_20190719_00_epoch_best_mae.p from https://']),
        (['sfcn', 'a', 'b'], ['expected 1 file', 'found 2']),
        (['sfcn', 'a', '--tag', 'x/y'], ['--tag', "'x/y'"]),
        (['sfcn', 'a', '--training-n', '0'], ['--training-n', 'found 0']),
    ],
)
def test_what_cannot_work_is_refused_before_a_file_is_read(arguments, words, capsys):
    assert main(['convert', *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    'name', [record.name for record in RECORDS if record.restriction] or ['none']
)
def test_a_licence_that_restricts_use_has_to_be_confirmed(name, tmp_path, capsys):
    if name == 'none':
        pytest.skip('no network has such a licence')
    record = published()[name]
    files = [str(tmp_path / f'{k}.h5') for k in range(record.n_files)]
    assert main(['convert', name, *files, '--out', str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert record.licence in message and record.restriction in message
    assert '--accept-licence' in message
    assert main(['convert', name, *files, '--out', str(tmp_path), '--accept-licence']) == 66


def test_a_dataset_called_convert_can_still_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'convert').mkdir()
    config = parse(['./convert', 'out', 'participant'], {})
    assert config.execution.bids_dir == tmp_path / 'convert'


def test_the_help_of_the_program_names_the_command(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    assert 'bids_brainage convert' in capsys.readouterr().out


def test_identity_is_that_of_git_and_of_sha256sum(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'hello\n')
    found = identify(path)
    assert found.size == 6
    assert found.git_blob == 'ce013625030ba8dba906f756967f9e9ca394464a'
    assert found.sha256.startswith('5891b5b522d5df086d0ff0b110fbd9d2')
    with pytest.raises(MissingInputError, match='no such file'):
        identify(tmp_path / 'absent')
