"""What goes on from stored images, against what the preprocessing hands on."""

import json
import math

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.interfaces.stored import NATIVE_MEASURES, RestoreImages, RestoreQuality
from bids_brainage.preprocessing.template import find_template
from bids_brainage.preprocessing.transforms import load_transform


def read(path):
    with open(path) as stream:  # noqa: PTH123 - a path of Nipype
        return json.load(stream)


@pytest.fixture(scope='module')
def restored(derivatives, archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp('restored')
    sides = {'structures': derivatives['structure_facts'], 'regions': {'VolumesML': {'x': 1.5}}}
    for name, content in sides.items():
        (folder / f'{name}.json').write_text(json.dumps(content))
    node = RestoreImages(
        **{n: str(derivatives[n]) for n in ('to_template', 'to_native', 'mask_native')},
        **{name: str(folder / f'{name}.json') for name in sides},
        template=str(find_template(archive, resolution=2).t1w),
    )
    return node.run(cwd=str(folder)).outputs


@pytest.mark.parametrize('name', ['transform', 'transform_affine'])
def test_transform_comes_back_to_the_last_digit(restored, derivatives, name):
    found, kept = (load_transform(path) for path in (getattr(restored, name), derivatives[name]))
    for part in ('affine', 'displacement', 'inverse_displacement', 'grid'):
        assert np.array_equal(getattr(found, part), getattr(kept, part)), part


def test_aligned_mask_is_that_of_the_preprocessing(restored, derivatives):
    found, kept = nib.load(restored.mask_affine), nib.load(derivatives['mask_affine'])
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(kept.dataobj))
    assert np.asarray(kept.dataobj).any()
    assert np.array_equal(found.affine, kept.affine)


def test_volumes_are_those_of_the_preprocessing(restored, derivatives):
    assert read(restored.volumes)['volumes_ml'] == read(derivatives['volumes'])['volumes_ml']
    assert read(restored.region_volumes)['VolumesML'] == {'x': 1.5}


def test_flags_come_back_from_the_measures(derivatives, tmp_path):
    kept = read(derivatives['quality'])
    node = RestoreQuality(measures=kept['measures'])
    assert read(node.run(cwd=str(tmp_path)).outputs.quality) == kept
    assert 'anisotropic' in kept['flags']
    node = RestoreQuality(measures=kept['measures'], native=True, sloppy=True)
    native = read(node.run(cwd=str(tmp_path)).outputs.quality)
    assert set(native['measures']) <= set(NATIVE_MEASURES)
    assert 'anisotropic' not in native['flags']
    assert native['flags'][-1] == 'sloppy'


def test_measure_that_was_no_number_is_none_again(tmp_path):
    found = RestoreQuality(measures={'similarity': None}).run(cwd=str(tmp_path)).outputs.quality
    assert math.isnan(read(found)['measures']['similarity'])
    assert read(found)['flags'] == ['registration_similarity']
