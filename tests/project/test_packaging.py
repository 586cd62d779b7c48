"""The metadata agrees with the code: requirements, tested versions, packaged files."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from lowest_versions import lowest

from bids_brainage import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'bids_brainage'


def normal(name):
    return re.sub('[-_.]+', '-', re.split('[<>=~! ;[]', name)[0]).lower()


def imported(folder):
    """Top-level modules that the files of a folder import, by file."""
    found = {}
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.split('.')[0], path.relative_to(ROOT))
    own = {'bids_brainage', *(path.stem for path in folder.glob('*.py'))}
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names | own}


@pytest.fixture(scope='module')
def metadata():
    """What setup.py hands to setuptools."""
    setuptools = pytest.importorskip('setuptools', reason='setuptools builds the package')
    captured = {}
    original, setuptools.setup = setuptools.setup, lambda **given: captured.update(given)
    try:
        code = compile((ROOT / 'setup.py').read_text('utf-8'), 'setup.py', 'exec')
        exec(code, {'__file__': str(ROOT / 'setup.py'), '__name__': '__main__'})
    finally:
        setuptools.setup = original
    return captured


def declared_for(modules):
    """Distributions that hold the modules, or the modules' own names when not installed."""
    installed = packages_distributions()
    return {name: {normal(d) for d in installed.get(name, [name])} for name in modules}


def test_what_is_imported_is_required(metadata):
    required = {normal(name) for name in metadata['install_requires']}
    used = imported(PACKAGE)
    missing = {
        f'{module} ({used[module]})'
        for module, owners in declared_for(used).items()
        if not owners & required
    }
    assert not missing, 'add to REQUIRES in setup.py'


def test_what_is_required_is_imported(metadata):
    owners = set().union(*declared_for(imported(PACKAGE)).values())
    assert {normal(name) for name in metadata['install_requires']} <= owners


def test_what_tests_import_is_required(metadata):
    known = {normal(name) for name in metadata['install_requires']}
    known |= {normal(name) for name in metadata['extras_require']['test']}
    tools = {path.stem for path in (ROOT / 'tools').glob('*.py')}
    used = {k: v for k, v in imported(ROOT / 'tests').items() if k not in tools}
    missing = {m for m, owners in declared_for(used).items() if not owners & known}
    assert not missing - {'setuptools'}


def test_every_requirement_has_a_tested_version(metadata):
    lines = (ROOT / 'constraints.txt').read_text('utf-8').splitlines()
    pins = [line for line in lines if not line.startswith('#')]
    assert all(re.fullmatch(r'[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*', pin) for pin in pins)
    wanted = {normal(name) for name in metadata['install_requires']}
    for extra in metadata['extras_require'].values():
        wanted |= {normal(name) for name in extra}
    assert wanted <= {normal(pin) for pin in pins}


def test_lowest_versions_are_those_of_the_metadata_and_not_above_the_tested_ones(metadata):
    pins = dict(pin.split('==') for pin in lowest((ROOT / 'setup.py').read_text('utf-8')))
    wanted = [*metadata['install_requires'], *metadata['extras_require']['test']]
    assert [normal(name) for name in pins] == [normal(name) for name in wanted]
    lines = (ROOT / 'constraints.txt').read_text('utf-8').splitlines()
    tested = {normal(pin): pin.split('==')[1] for pin in lines if '==' in pin}

    def numbers(version):
        return [int(number) for number in version.split('.') if number.isdigit()]

    for name, version in pins.items():
        assert numbers(version) <= numbers(tested[normal(name)]), name


def test_bounds_become_the_lowest_version():
    assert lowest("A = ['x>=1']\nTEST = ['a_b>=1.10,<1.12', 'c-d>=2']\n") == [
        'a_b==1.10',
        'c-d==2',
    ]
    with pytest.raises(ValueError, match='x does not begin with a lowest version'):
        lowest("REQUIRES = ['x']")
    with pytest.raises(ValueError, match='does not begin'):
        lowest("REQUIRES = ['x<2,>=1']")


def test_all_data_files_are_packaged(tmp_path, metadata):
    command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    built = {p.relative_to(tmp_path) for p in tmp_path.rglob('*') if p.is_file()}
    sources = [*(PACKAGE / 'data').rglob('*'), PACKAGE / 'py.typed', *PACKAGE.rglob('*.py')]
    expected = {p.relative_to(ROOT) for p in sources if p.is_file()}
    assert not {str(p) for p in expected - built if '__pycache__' not in p.parts}


def test_module_answers_like_the_command():
    command = [sys.executable, '-m', 'bids_brainage', '--version']
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0
    assert answer.stdout == f'bids_brainage {__version__}\n'
