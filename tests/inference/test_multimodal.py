"""What a model of structure and connectivity says of the structures it looked at."""

import nibabel as nib
import numpy as np
import torch

from bids_brainage.inference.multimodal import structure_sensitivity
from bids_brainage.preprocessing.atlas import load_structures

SHAPE = (12, 14, 10)
GRID = np.diag([4.0, 4.0, 4.0, 1.0])
FINE = np.diag([2.0, 2.0, 2.0, 1.0])
FINE[:3, 3] = -1


class Weighted(torch.nn.Module):
    """An age whose gradient is known at every voxel."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.from_numpy(weights)

    def forward(self, image):
        return (image * self.weights).sum((1, 2, 3, 4))


def test_structures_are_the_persons_own_on_the_aligned_image(tmp_path):
    """Labels on their own grid, in no place where the template has the structure."""
    first, second, *others = load_structures()
    labels = np.zeros(SHAPE, np.uint8)
    labels[:3], labels[8:, :5] = first.index, second.index
    weights = np.where(labels == first.index, 2.0, -0.5).astype(np.float32)
    fine = labels.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    nib.save(nib.Nifti1Image(fine, FINE), tmp_path / 'labels.nii.gz')
    inputs = (torch.zeros(1, 1, *SHAPE),)
    found = structure_sensitivity([Weighted(weights)], inputs, GRID, tmp_path / 'labels.nii.gz')
    assert (found[first.name], found[second.name]) == (2.0, 0.5)
    assert all(np.isnan(found[s.name]) for s in others)
