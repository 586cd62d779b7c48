"""One simulated head, and what the preprocessing makes of it, shared by all tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

AGE = 70.0
VOXEL_MM = 3.0
FIXED_MM = 4


@dataclass(frozen=True)
class Fixed:
    """A template brain on a coarse grid: a registration to it takes two seconds."""

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Head:
    """A scan as read from its file, with its truth in the same voxel order."""

    path: Path
    data: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    truth: Any

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


@pytest.fixture(scope='session')
def archive(tmp_path_factory):
    from bids_brainage.preprocessing.template import install_packaged_template

    return install_packaged_template(tmp_path_factory.mktemp('templateflow'))


@pytest.fixture(scope='session')
def fixed(archive):
    """Blocks of 2 x 2 x 2 voxels of the 2 mm template."""
    from bids_brainage.inputs.reduce import reduce_half
    from bids_brainage.preprocessing.template import find_template

    template = find_template(archive, resolution=2)
    affine = nib.load(template.t1w).affine
    image, mask = (
        reduce_half(np.asarray(nib.load(path).dataobj), affine)
        for path in (template.t1w, template.mask)
    )
    return Fixed(image[0], mask[0] > 0.5, image[1])


@pytest.fixture(scope='session')
def take_scan(tmp_path_factory):
    """Scan one person again and again: ``take_scan(name, voxel, skull_strip=..., **settings)``.

    Without a bias field, which has its own test, and otherwise as drawn for the person.
    """
    from bids_brainage.preprocessing.image import load_canonical
    from bids_brainage.simulation import make_person, simulate_scan
    from bids_brainage.simulation.render import draw_acquisition

    folder = tmp_path_factory.mktemp('scans')
    person = make_person(7, 'F', spacing=2)
    brain = person.at_age(AGE)
    plain = replace(draw_acquisition((7, 0), 'RAS'), bias=0.0)

    def take(name, voxel=VOXEL_MM, skull_strip=False, **settings):
        acquisition = replace(plain, **settings)
        truth = simulate_scan(
            person, AGE, acquisition, (voxel,) * 3, skull_strip=skull_strip, brain=brain
        )
        path = folder / f'{name}.nii.gz'
        nib.save(truth.image, path)
        data, affine, _ = load_canonical(path)
        mask = np.asarray(nib.as_closest_canonical(truth.brain_mask).dataobj) > 0
        return Head(path, data, affine, mask, truth)

    return take


@pytest.fixture(scope='session')
def head(take_scan):
    """A whole head, 3 mm, RAS."""
    return take_scan('head')


@pytest.fixture(scope='session')
def registered(head, fixed):
    """Template → native transform of `head`, and the scores of its affine step."""
    from bids_brainage.preprocessing.registration import register

    return register(fixed.image, fixed.mask, fixed.affine, head.data, head.mask, head.affine)


@pytest.fixture(scope='session')
def derivatives(take_scan, fixed, archive, tmp_path_factory):
    """Files of a skull-stripped scan after each anatomical step, by name.

    The steps are run as the workflow runs them, but the registration on 4 mm, the results on
    2 mm, and no bias correction.
    """
    from bids_brainage.interfaces import anatomical
    from bids_brainage.preprocessing.template import find_template

    folder = tmp_path_factory.mktemp('derivatives')
    template = find_template(archive, resolution=2)
    coarse = {}
    for name, data in (('template', fixed.image), ('template_mask', fixed.mask)):
        coarse[name] = str(folder / f'{name}.nii.gz')
        nib.save(nib.Nifti1Image(data.astype(np.float32), fixed.affine), coarse[name])
    found = {'source': take_scan('stripped', skull_strip=True).path}

    def step(interface, **renamed):
        place = folder / type(interface).__name__
        place.mkdir()
        outputs = interface.run(cwd=str(place)).outputs.get()
        found.update({renamed.get(name, name): value for name, value in outputs.items()})

    step(anatomical.CheckT1w(t1w=str(found['source']), memo=str(folder / 'inputs.json')))
    step(anatomical.ExtractBrain(t1w=found['t1w'], facts=found['facts']), measures='mask_measures')
    native = {'t1w': found['t1w'], 'mask': found['mask']}
    step(anatomical.RegisterToTemplate(**native, **coarse))
    step(
        anatomical.SegmentBrain(**native, transform=found['transform']),
        gm='gm_native', tissues='tissues_native', structures='structures_native',
    )  # fmt: skip
    found['t1w_native'], found['mask_native'] = native['t1w'], native['mask']
    found['t1w_uncorrected'] = native['t1w']
    step(
        anatomical.WarpToTemplate(
            **native,
            gm=found['gm_native'],
            tissues=found['tissues_native'],
            structures=found['structures_native'],
            transform=found['transform'],
            template=str(template.t1w),
        )
    )
    step(
        anatomical.AssessQuality(
            facts=found['facts'],
            mask_measures=found['mask_measures'],
            scores=found['scores'],
            volumes=found['volumes'],
        )
    )
    return {
        name: Path(value) if isinstance(value, str) else value for name, value in found.items()
    }


@pytest.fixture
def one_thread():
    """Networks on one thread: sums then do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
