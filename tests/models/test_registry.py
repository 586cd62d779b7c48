"""The registry answers without heavy imports and every entry can be built."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from bids_brainage.errors import OptionError
from bids_brainage.models import create_model, list_models, model_info

# Generous for a loaded machine; importing torch alone takes more than 1 s of CPU.
MAX_START_CPU_SECONDS = 1.0

PROBE = """
import sys, time
import bids_brainage.models as models
from bids_brainage.bundles.listing import model_rows
names = models.list_models()
rows = model_rows([])
heavy = sorted({'torch', 'monai', 'pandas', 'nibabel', 'nilearn'} & set(sys.modules))
assert not heavy, heavy
assert len(rows) == len(names) > 0
print(time.process_time())
"""


def test_listing_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, '-c', PROBE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < MAX_START_CPU_SECONDS


@pytest.mark.parametrize('name', list_models())
def test_entry_is_complete(name):
    info = model_info(name)
    assert find_spec(info.module) is not None
    assert info.backend in {'torch', 'numpy'}
    assert info.system in {'A', 'B', 'C', 'D', '-'}
    assert info.title
    assert set(info.reference) == {'text', 'doi'}
    assert {'kind', 'shape', 'voxel_size_mm'} <= set(info.input)


def test_unknown_architecture_lists_the_known_ones():
    with pytest.raises(OptionError, match='resnet_crossvit'):
        model_info('resnet_crosvit')


def test_unknown_option_is_a_clear_error():
    with pytest.raises(OptionError, match='no_such_option'):
        create_model('resnet_only', no_such_option=1)
