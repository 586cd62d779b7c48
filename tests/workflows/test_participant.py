"""What each kind of model is given, read off the graph; nothing is run."""

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Scan
from bids_brainage.preprocessing.template import find_template
from bids_brainage.workflows.images import IMAGES
from bids_brainage.workflows.participant import init_scan_wf
from bids_brainage.workflows.settings import RunSettings, ScanWork

ALIGNED = {
    't1w': 'anat_wf.t1w_affine',
    'mask': 'anat_wf.mask_affine',
    'transform': 'anat_wf.transform',
}


def settings_of(root, archive, *options):
    config = parse([str(root / 'bids'), str(root / 'out'), 'participant', *options], {})
    templates = (find_template(archive, resolution=size) for size in (2, 1))
    return RunSettings(config, *templates, {})


@pytest.fixture(scope='module')
def given(archive, tmp_path_factory):
    """Return, for an architecture, what its prediction takes from which output of the anatomy."""
    root = tmp_path_factory.mktemp('graph')
    name = 'sub-01_T1w.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4)), root / name)
    scan = Scan(root / name, name, '01', None, None, {'sub': '01'}, 'T1w', 'anat')
    (root / 'bids').mkdir()
    settings = settings_of(root, archive)

    def connections(arch, **options):
        bundle = make_untrained_bundle(arch, 'x', root / 'models', shape=(32, 32, 32), **options)
        workflow = init_scan_wf(work=ScanWork(scan, (bundle,)), settings=settings)
        predict = workflow.get_node(f'predict_{bundle.label}_wf')
        found = {}
        for origin, target, edge in workflow._graph.edges(data=True):
            if target is predict:
                for source, port in edge['connect']:
                    found[port.split('.')[-1]] = f'{origin.name}.{source.split(".")[-1]}'
        return found

    return connections


def test_aligned_models_see_aligned_images_and_their_maps_are_deformed(given):
    """The whole transform goes to the step that saves the maps."""
    seen = given('vgg8')
    assert {role: seen[role] for role in ALIGNED} == ALIGNED
    assert 'structures' not in seen


def test_structures_of_system_d_lie_on_its_image(given):
    seen = given('amagenet', n_nodes=6)
    assert {role: seen[role] for role in ALIGNED} == ALIGNED
    assert seen['structures'] == 'align_structures.aligned'


def test_models_of_grey_matter_see_what_was_deformed(given):
    seen = given('resnet_only')
    assert seen['gm_modulated'] == 'anat_wf.gm_modulated'
    assert (seen['mask'], seen['transform']) == ('anat_wf.mask', 'anat_wf.transform')


@pytest.mark.parametrize(
    ('level', 'saved'),
    [
        ('minimal', {'save_volumes'}),
        ('standard', {'save_t1w', 'save_mask', 'save_mask_native', 'save_regions'}),
        ('full', {f'save_{image}' for image in IMAGES}),
    ],
)
def test_level_of_output_decides_what_is_written_not_what_is_made(archive, tmp_path, level, saved):
    name = 'sub-01_T1w.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4)), tmp_path / name)
    scan = Scan(tmp_path / name, name, '01', None, None, {'sub': '01'}, 'T1w', 'anat')
    (tmp_path / 'bids').mkdir()
    bundle = make_untrained_bundle('vgg8', 'x', tmp_path / 'models', shape=(32, 32, 32))
    found = {}
    for chosen in ('full', level):
        settings = settings_of(tmp_path, archive, '--level', chosen)
        workflow = init_scan_wf(work=ScanWork(scan, (bundle,), images=True), settings=settings)
        found[chosen] = set(workflow.list_node_names())
    folder = 'anat_derivatives_wf.'
    own = {n.removeprefix(folder) for n in found[level] if n.startswith(f'{folder}save_')}
    assert own == saved
    others = [{n for n in found[c] if not n.startswith(folder)} for c in ('full', level)]
    assert others[0] == others[1]
    keeps = workflow.get_node('predict_vgg8x_wf.save').inputs.keep_maps
    assert keeps is (level != 'minimal')


@pytest.mark.parametrize(
    ('wanted', 'networks', 'counted'),
    [('auto', 'cpu', False), ('cuda:1', 'cuda:1', True), ('mps', 'cpu', False)],
)
def test_networks_of_the_preprocessing_run_on_a_gpu_that_is_named(
    archive, tmp_path, wanted, networks, counted
):
    name = 'sub-01_T1w.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4)), tmp_path / name)
    scan = Scan(tmp_path / name, name, '01', None, None, {'sub': '01'}, 'T1w', 'anat')
    (tmp_path / 'bids').mkdir()
    bundle = make_untrained_bundle('vgg8', 'x', tmp_path / 'models', shape=(32, 32, 32))
    settings = settings_of(tmp_path, archive, '--device', wanted)
    workflow = init_scan_wf(work=ScanWork(scan, (bundle,)), settings=settings)
    for step in ('extract_brain', 'measure_regions'):
        node = workflow.get_node('anat_wf').get_node(step)
        assert (node.inputs.device, node.inputs.use_gpu) == (networks, counted)
