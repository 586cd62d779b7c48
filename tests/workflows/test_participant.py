"""What each kind of model is given, read off the graph; nothing is run."""

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.bundles.untrained import make_untrained_bundle
from bids_brainage.cli.request import parse
from bids_brainage.dataset.scan import Scan
from bids_brainage.preprocessing.template import find_template
from bids_brainage.workflows.participant import init_scan_wf
from bids_brainage.workflows.settings import RunSettings, ScanWork

ALIGNED = {
    't1w': 'anat_wf.t1w_affine',
    'mask': 'anat_wf.mask_affine',
    'transform': 'anat_wf.transform',
}


@pytest.fixture(scope='module')
def given(archive, tmp_path_factory):
    """Return, for an architecture, what its prediction takes from which output of the anatomy."""
    root = tmp_path_factory.mktemp('graph')
    name = 'sub-01_T1w.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4)), root / name)
    scan = Scan(root / name, name, '01', None, None, {'sub': '01'}, 'T1w', 'anat')
    (root / 'bids').mkdir()
    config = parse([str(root / 'bids'), str(root / 'out'), 'participant', '--sloppy'], {})
    settings = RunSettings(
        config, find_template(archive, resolution=2), find_template(archive, resolution=1), {}
    )

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
