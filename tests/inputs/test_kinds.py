"""Kinds of model input: one record each, which everything else asks."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import bids_brainage
from bids_brainage.bundles.contract import metadata_problems
from bids_brainage.bundles.untrained import untrained_metadata
from bids_brainage.errors import BundleError
from bids_brainage.inference.__main__ import ROLES
from bids_brainage.inputs.kinds import CONNECTIVITY, KINDS, age_kinds, kind_of
from bids_brainage.interfaces.prediction import PredictAge
from bids_brainage.models.registry import list_models, model_info

PACKAGE = Path(bids_brainage.__file__).parent


@pytest.mark.parametrize('kind', KINDS.values(), ids=lambda kind: kind.name)
def test_a_record_is_complete(kind):
    module, _, function = kind.prepared_by.partition(':')
    assert callable(getattr(import_module(module), function))
    assert set(kind.derivatives) <= set(kind.roles)
    paths = kind.derivative_paths({'sub': '01', 'ses': '2', 'run': '1'}, 'MNI152NLin2009aSym')
    assert all(
        path is None or path.as_posix().startswith('sub-01/ses-2/anat/sub-01_ses-2_run-1_')
        for path in paths.values()
    )


def test_every_architecture_takes_a_known_kind():
    for arch in list_models():
        assert kind_of(model_info(arch).input).gives_age, arch


def test_the_prediction_step_passes_every_file_on():
    traits = PredictAge.input_spec().traits()
    assert {CONNECTIVITY, 'mask', 'mask_native'} <= set(ROLES)
    for name in age_kinds():
        assert KINDS[name].elsewhere or set(KINDS[name].roles) <= set(ROLES)
    for role in ROLES:
        assert traits[role].argstr == f'--{role.replace("_", "-")} %s'


def test_what_generators_learn_from_is_no_input_of_a_bundle():
    metadata = untrained_metadata('vgg8', 'test', {}) | {
        'schema': 'bids_brainage-bundle-1', 'weights_sha256': '0', 'config_hash': '0',
        'package_version': '0', 'changelog': {}, 'network_data_format': {},
        'monai_version': None, 'pytorch_version': None, 'numpy_version': None,
    }  # fmt: skip
    metadata['golden'] = {'seed': 0, 'age': 45.0}
    assert metadata_problems(metadata) == []
    metadata['input'] = metadata['input'] | {'kind': 'cbv_pair'}
    assert any('`input.kind` must be one of' in problem for problem in metadata_problems(metadata))
    with pytest.raises(BundleError, match='made for a newer version'):
        kind_of({'kind': 'telepathy'})


def test_a_kind_is_named_in_one_file_of_the_package():
    """Adding a kind is adding a record: nothing else asks for one by its name."""
    names = '|'.join(name for name in KINDS if name.startswith(('t1w_', 'modulated')))
    told = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob('*.py')
        if re.search(f"'({names})'", path.read_text('utf-8'))
    }
    assert told == {'inputs/kinds.py'}
