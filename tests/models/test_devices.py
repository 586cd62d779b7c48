"""Every network runs on the device that was asked for; none is needed but the CPU's to see it."""

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_brainage.errors import BundleError, TemporaryError
from bids_brainage.interfaces.anatomical import ExtractBrain
from bids_brainage.interfaces.regions import MeasureRegions
from bids_brainage.models.devices import careful_with_gpus, choose_device
from bids_brainage.preprocessing import brainmask
from bids_brainage.segmentation.measure import probabilities
from bids_brainage.segmentation.weights import card, load_networks

FULL = torch.cuda.OutOfMemoryError('CUDA out of memory')
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there')


@pytest.fixture
def brain(tmp_path):
    """Files of a box that is brightest in its middle, with the middle as mask."""
    data = np.zeros((48, 48, 48), np.float32)
    data[8:40, 8:40, 8:40] = np.linspace(50, 100, 32)
    for name, image in (('t1w', data), ('mask', (data > 0).astype('u1'))):
        nib.save(nib.Nifti1Image(image, np.diag([4.0, 4, 4, 1])), tmp_path / f'{name}.nii')
    (tmp_path / 'facts.json').write_text('{"skull_stripped": false, "source": "a.nii"}')
    return {name: str(tmp_path / file) for name, file in (
        ('t1w', 't1w.nii'), ('mask', 'mask.nii'), ('facts', 'facts.json'),
    )}  # fmt: skip


@no_gpu
def test_absent_device_is_refused_and_auto_falls_back():
    with pytest.raises(BundleError, match=r'--device cuda was asked for.*--device cpu'):
        choose_device('cuda')
    assert choose_device('auto') == choose_device('cpu') == 'cpu'


@no_gpu
def test_steps_of_the_brain_ask_for_their_device(brain):
    regions = MeasureRegions(**brain, weights_sha256=card()['weights_sha256'], device='cuda')
    del brain['mask']
    for step in (ExtractBrain(**brain, device='cuda'), regions):
        with pytest.raises(BundleError, match='--device cuda was asked for'):
            step.run()


def test_full_gpu_is_worth_another_try():
    told = pytest.raises(TemporaryError, match=r'ran out of memory for the mask.*--device cpu')
    with told, careful_with_gpus('the mask'):
        raise FULL
    assert not torch.backends.cudnn.allow_tf32  # else the CPU's numbers are rounded to ten bits


def test_regions_are_found_where_the_networks_are():
    networks = load_networks(device='meta')
    assert {p.device.type for network in networks for p in network.parameters()} == {'meta'}
    seen = []

    class Elsewhere(torch.nn.Conv3d):
        def forward(self, x):
            seen.append(x.device.type)
            return torch.zeros(1, 3, *x.shape[2:])

    found = probabilities([Elsewhere(1, 3, 1, device='meta')], np.zeros((16, 16, 16), 'f4'))
    assert seen == ['meta']
    np.testing.assert_allclose(found, 1 / 3)


@pytest.mark.parametrize('error', [None, FULL, RuntimeError('empty')])
def test_brain_mask_is_found_on_the_device(monkeypatch, error):
    """A full GPU is told; everything else that stops the network means that there is no brain."""
    moved = []

    class Network:
        def to(self, device):
            moved.append(device)

    class Extraction:
        def __init__(self, no_gpu):
            self.model, self.bbox_model = Network(), Network()

        def run(self, image):
            if error is not None:
                raise error
            return None, image, None

    monkeypatch.setattr('deepbet.BrainExtraction', Extraction)
    head = np.ones((4, 4, 4), np.float32)
    if error is FULL:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            brainmask.brain_mask_deepbet(head, np.eye(4), device='cuda:1')
    else:
        mask = brainmask.brain_mask_deepbet(head, np.eye(4), device='cuda:1')
        assert mask.all() == (error is None)
    assert moved == ['cuda:1', 'cuda:1']
