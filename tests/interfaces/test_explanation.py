"""Maps of people whose brains differ from the template by more than an affine."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nipype.interfaces.base import Undefined

from bids_brainage.interfaces.explanation import save_maps
from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.transforms import (
    SpatialTransform,
    grid_points,
    sample_image,
    save_transform,
    voxel_points,
)
from bids_brainage.runs.group_maps import choose_maps, make_group_maps

SAMPLED_TWICE = 0.08  # what a second interpolation on 3 mm takes from the thalamus
SHAPE = (66, 79, 64)
GRID = np.diag([3.0, 3.0, 3.0, 1.0])
GRID[:3, 3] = -98, -134, -72
CENTRE = np.array([0.0, -16.0, 8.0])
SPACE = 'MNI152NLin2009aSym'
BUNDLE = SimpleNamespace(name='net.a', label='neta', weights_sha256='0')


def person(stretch):
    """A brain of which every distance from the middle is longer than in the template.

    Such a displacement is linear, so the grid holds it exactly; so is its inverse.
    """
    affine = np.diag([0.9, 1.1, 1.0, 1.0])
    affine[:3, 3] = 3.0, -5.0, 2.0
    away = (grid_points(SHAPE, GRID) - CENTRE).reshape(*SHAPE, 3)
    inverse = -stretch / (1 + stretch) * away
    return SpatialTransform(
        affine, (stretch * away).astype(np.float32), inverse.astype(np.float32), GRID
    )


def thalamus():
    """Return the thalamus of the template as a map of ones."""
    atlas = load_atlas()
    names = [s.name for s in atlas.structures]
    return atlas.priors[names.index('thalamus')].astype(np.float32), atlas.affine


def write_person(root, name, stretch, *, keep=True):
    """Write the maps of a model that looked at the thalamus, aligned and deformed."""
    folder, out = root / name, root / 'out'
    folder.mkdir()
    transform = person(stretch)
    save_transform(folder / 'transform.npz', transform)
    native = nib.Nifti1Image(np.ones(SHAPE, np.uint8), transform.affine @ GRID)
    nib.save(native, folder / 'mask.nii')
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), GRID), folder / 'template.nii')
    looked, affine = thalamus()
    points = grid_points(SHAPE, GRID)
    # where a point of the aligned image lies in the template, by the known law
    origin = CENTRE + (points - CENTRE) / (1 + stretch)
    seen = {
        'aligned': sample_image(looked, affine, origin.astype(np.float32)),
        'deformed': sample_image(looked, affine, points),
    }
    maps = []
    for method, data in seen.items():
        nib.save(nib.Nifti1Image(data.reshape(SHAPE), GRID), folder / f'{method}.nii.gz')
        maps.append({
            'method': method, 'file': f'{method}.nii.gz', 'space': SPACE, 'unit': 'arbitrary',
            'sanity': None, 'outside_brain': 0.0, 'regional': False,
            'aligned': method == 'aligned',
        })  # fmt: skip
    source = f'sub-{name}/anat/sub-{name}_T1w.nii.gz'
    inputs = SimpleNamespace(
        mask_native=str(folder / 'mask.nii'), template=str(folder / 'template.nii'),
        transform=str(folder / 'transform.npz'), prediction=str(folder / 'prediction.json'),
        scan={'source': f'bids:raw:{source}'}, sources=Undefined, source_file=f'/data/{source}',
        base_directory=str(out), keep_maps=keep,
    )  # fmt: skip
    return save_maps(inputs, maps, BUNDLE), transform


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp('people')
    return root, {name: write_person(root, name, s) for name, s in (('1', 0.3), ('2', -0.2))}


def middle(data, affine):
    """Return the centre of a map in mm."""
    weights = np.asarray(data, float).ravel()
    return weights @ grid_points(data.shape, affine) / weights.sum()


def data_of(path):
    return np.asarray(nib.load(path).dataobj, np.float32)


@pytest.mark.parametrize('name', ['1', '2'])
def test_an_aligned_map_is_deformed_to_the_template(people, name):
    """Both ways of looking at one place give one map, in the template and in the person."""
    aligned, deformed = people[1][name][0]
    for space in ('template', 'native'):
        one, other = (data_of(getattr(m, space)) for m in (aligned, deformed))
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97, space
    expected, affine = thalamus()
    found = middle(data_of(aligned.template), GRID)
    np.testing.assert_allclose(found, middle(expected, affine), atol=1)


def test_maps_of_the_person_lie_where_the_person_has_the_place(people):
    (aligned, _), transform = people[1]['1']
    native = nib.load(aligned.native)
    points = transform.to_template(voxel_points(np.ones(SHAPE, bool), native.affine))
    expected = sample_image(*thalamus(), points)
    assert np.corrcoef(np.asarray(native.dataobj).ravel(), expected)[0, 1] > 0.97


def test_maps_of_a_decade_are_read_where_the_atlas_has_the_structure(people):
    """Without the deformation r is 0.87 and the thalamus 13 % too weak here."""
    root, _ = people
    rows = [
        (f'sub-{n}', f'bids:raw:sub-{n}/anat/sub-{n}_T1w.nii.gz', 'net.a', '65', 'ok')
        for n in ('1', '2')
    ]
    table = pd.DataFrame(rows, columns=['participant_id', 'source', 'model', 'age', 'status'])
    out = root / 'out'
    maps = [p.relative_to(out).as_posix() for p in sorted(out.rglob('*_res-1_*saliency.nii.gz'))]
    made = make_group_maps(out, choose_maps(table, maps, None)).table.set_index(
        ['method', 'structure']
    )['mean_abs']
    expected = pytest.approx(made['deformed', 'thalamus'], rel=SAMPLED_TWICE)
    assert made['aligned', 'thalamus'] == expected
    one, other = (
        data_of(next(out.glob(f'group_age*_desc-{method}_*.nii.gz'))).ravel()
        for method in ('aligned', 'deformed')
    )
    assert np.corrcoef(one, other)[0, 1] > 0.97


def test_maps_that_do_not_stay_are_there_to_draw_and_their_notes_to_report(people, tmp_path):
    saved, _ = write_person(tmp_path, '1', 0.3, keep=False)
    assert list((tmp_path / 'out').rglob('*.nii*')) == []
    notes = sorted(path.name for path in (tmp_path / 'out').rglob('*_saliency.json'))
    assert notes == [
        f'sub-1_space-T1w_model-neta_desc-{method}_saliency.json'
        for method in ('aligned', 'deformed')
    ]
    for own, other in zip(saved, people[1]['1'][0], strict=True):
        assert own.template is None
        assert own.native.name == other.native.name  # the picture is named after it
        np.testing.assert_array_equal(data_of(own.native), data_of(other.native))
