"""Each kind of model input: declared grid, right place, published recipe."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.bundles.untrained import untrained_metadata
from bids_brainage.errors import BundleError, MissingInputError
from bids_brainage.inputs.kinds import kind_of, prepare_input
from bids_brainage.inputs.reduce import reduce_half
from bids_brainage.inputs.sfcn import prepare_sfcn
from bids_brainage.models.registry import list_models, model_info
from bids_brainage.preprocessing.resample import onto_grid
from bids_brainage.training.cache import prepare_rows

SMALL = (26, 32, 26)
CENTRE_MM = 1.0
SPACE = 'MNI152NLin2009aSym'
NODES = 90
IMAGES = [name for name in list_models() if not kind_of(model_info(name).input).is_table]


def declared(arch, shape=None):
    return untrained_metadata(arch, 'test', {}, shape=shape)['input']


def corners(block):
    """Return the outer corners of a grid in mm."""
    affine = np.array(block['affine'])
    low, high = np.full(3, -0.5), np.array(block['shape']) - 0.5
    return affine[:3, :3] @ low + affine[:3, 3], affine[:3, :3] @ high + affine[:3, 3]


def centre_of_mass(data, affine):
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing='ij'))
    centre = (index * data).reshape(3, -1).sum(1) / data.sum()
    return affine[:3, :3] @ centre + affine[:3, 3]


@pytest.fixture(scope='module')
def files(derivatives, tmp_path_factory):
    """Derivatives by role, on 2 mm, and a connectivity table."""
    folder = tmp_path_factory.mktemp('inputs')
    series = np.random.default_rng(0).standard_normal((NODES, 60))
    rows = ['\t'.join(f'r{k}' for k in range(NODES))]
    rows += ['\t'.join(f'{v:.6f}' for v in row) for row in np.corrcoef(series)]
    (folder / 'connectivity.tsv').write_text('\n'.join(rows) + '\n')
    roles = ('t1w', 'gm_modulated', 'volumes', 't1w_uncorrected', 'mask_native')
    return {role: derivatives[role] for role in roles} | {
        'connectivity': folder / 'connectivity.tsv'
    }


@pytest.fixture(scope='module')
def fine_grey(tmp_path_factory):
    """Smooth grey matter on the 1 mm grid of the derivatives."""
    x, y, z = np.ogrid[-98:99, -134:99, -72:117]
    data = (0.5 + 0.5 * np.cos(x / 9) * np.cos(y / 11) * np.cos(z / 7)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = -98, -134, -72
    path = tmp_path_factory.mktemp('fine') / 'gm.nii'
    nib.save(nib.Nifti1Image(data, affine), path)
    return path, data, affine


def test_smaller_grids_cover_the_published_field_of_view():
    for arch in IMAGES:
        published, small = declared(arch), declared(arch, SMALL)
        assert small['shape'] == list(SMALL)
        if published['affine'] is None:
            assert small['voxel_size_mm'] == published['voxel_size_mm']
            continue
        np.testing.assert_allclose(corners(small), corners(published), atol=1e-6)
        np.testing.assert_allclose(np.diag(small['affine'])[:3], small['voxel_size_mm'], rtol=1e-9)


def test_system_a_is_the_halved_box_of_169_x_205_x_169(fine_grey):
    path, data, affine = fine_grey
    block = declared('resnet_crossvit')
    prepared = prepare_input(block, {'gm_modulated': path})
    (volume,) = prepared.arrays
    assert volume.shape == (1, 84, 102, 84)
    # the box starts at -84, -120, -72: voxel 14, 14, 0 of the derivative
    box_affine = affine.copy()
    box_affine[:3, 3] = -84, -120, -72
    expected, grid = reduce_half(data[14:183, 14:219, :169], box_affine)
    np.testing.assert_allclose(volume[0], expected, atol=1e-5)
    np.testing.assert_allclose(prepared.affine, grid)
    np.testing.assert_allclose(prepared.affine, block['affine'])
    assert prepared.space == SPACE


@pytest.mark.parametrize('arch', ['resnet_crossvit', 'vgg8', 'sfcn', 'amagenet'])
def test_template_inputs_are_on_the_declared_grid_and_in_place(files, arch):
    block = declared(arch, SMALL)
    prepared = prepare_input(block, files)
    volume = prepared.arrays[0]
    assert volume.shape == (1, *SMALL)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(prepared.affine, block['affine'])
    source = nib.load(files['gm_modulated' if arch == 'resnet_crossvit' else 't1w'])
    expected = centre_of_mass(np.asarray(source.dataobj, float), source.affine)
    found = centre_of_mass(volume[0].astype(float), prepared.affine)
    np.testing.assert_allclose(found, expected, atol=CENTRE_MM)


def test_published_grids_of_the_t1w_systems(files):
    for arch in ('vgg8', 'sfcn', 'amagenet'):
        block = declared(arch)
        prepared = prepare_input(block, files)
        assert prepared.arrays[0].shape == (1, *block['shape']), arch
        np.testing.assert_allclose(prepared.affine, block['affine'], atol=1e-3)
        values = prepared.arrays[0]
        if arch == 'vgg8':
            top = np.sort(values.ravel())[-int(np.ceil(values.size / 100)) :]
            assert top.mean(dtype=float) == pytest.approx(1, rel=1e-4)
        elif arch == 'sfcn':
            image = nib.load(files['t1w'])
            box = np.eye(4)
            box[:3, 3] = -91, -126, -72
            whole = onto_grid(
                np.asarray(image.dataobj, np.float32), image.affine, (182, 218, 182), box
            )
            np.testing.assert_array_equal(values[0], prepare_sfcn(whole, box)[0])
        else:
            assert (values.min(), values.max()) == (0, 1)


@pytest.mark.parametrize(
    ('shape', 'size'), [((80, 120, 40), 2.0), (SMALL, 2.0), ((40, 60, 30), 4.0)]
)
def test_clinical_input_is_a_box_about_the_native_brain(files, head, shape, size):
    block = declared('densenet169_clinical', shape) | {'voxel_size_mm': [size] * 3}
    prepared = prepare_input(block, files)
    volume = prepared.arrays[0]
    assert volume.shape == (1, *shape)
    assert prepared.space == 'T1w'
    np.testing.assert_allclose(np.linalg.norm(prepared.affine[:3, :3], axis=0), size)
    inside = np.argwhere(head.mask)
    middle = (inside.min(0) + inside.max(0)) / 2
    brain = head.affine[:3, :3] @ middle + head.affine[:3, 3]
    box = prepared.affine[:3, :3] @ ((np.array(shape) - 1) / 2) + prepared.affine[:3, 3]
    np.testing.assert_allclose(box, brain, atol=1.5 * size)


def test_clinical_voxels_must_be_cubes(files):
    block = declared('densenet169_clinical') | {'voxel_size_mm': [2.0, 2.0, 5.0]}
    with pytest.raises(BundleError, match=r'\[2\.0, 2\.0, 5\.0\] mm; expected equal edges'):
        prepare_input(block, files)


def test_connectivity_model_takes_what_there_is(files):
    block = declared('amagenet', SMALL)
    both = prepare_input(block, files)
    assert both.arrays[1].shape == (NODES, NODES)
    assert both.note == ''
    alone = prepare_input(block, {'t1w': files['t1w']})
    assert alone.arrays[1] is None
    assert alone.note == 'predicted without connectivity'
    graph = prepare_input(block, {'connectivity': files['connectivity']})
    assert graph.arrays[0] is None
    assert graph.affine is None
    assert graph.note == 'predicted without T1w'
    with pytest.raises(MissingInputError, match='found neither'):
        prepare_input(block, {})


def test_weights_trained_on_t1w_alone_do_not_get_connectivity(files):
    block = declared('amagenet', SMALL) | {'structural_only': True}
    image, matrix = prepare_input(block, files).arrays
    assert image.shape == (1, *SMALL)
    assert matrix is None
    assert 'not trained on' in prepare_input(block, files).note
    with pytest.raises(MissingInputError, match='found neither'):
        prepare_input(block, {'connectivity': files['connectivity']})


def test_weights_trained_on_t1w_alone_miss_nothing_without_connectivity(files):
    block = declared('amagenet', SMALL) | {'structural_only': True}
    assert prepare_input(block, {'t1w': files['t1w']}).note == ''
    (array,) = prepare_rows(block, files)[0]
    assert array.shape == (1, *SMALL)


def test_system_d_scales_as_system_b_where_the_bundle_says_so(files):
    block = declared('vgg8', SMALL) | {'kind': 't1w_connectivity', 'structural_only': True}
    image, matrix = prepare_input(block, files).arrays
    np.testing.assert_array_equal(image, prepare_input(declared('vgg8', SMALL), files).arrays[0])
    assert matrix is None
    published = prepare_input(declared('amagenet', SMALL), files).arrays[0]
    assert published.max() <= 1 < image.max()


def test_volume_features_come_from_the_table(files):
    block = {'kind': 'volumes', 'features': ['cortex/brain', 'brain/intracranial'], 'space': SPACE}
    volumes = json.loads(files['volumes'].read_text())['volumes_ml']
    brain = sum(volumes.values()) - volumes['csf']
    expected = np.log([volumes['cortex'] / brain, brain / sum(volumes.values())])
    np.testing.assert_allclose(prepare_input(block, files).arrays[0], expected)


def test_what_is_missing_is_named(files, tmp_path):
    with pytest.raises(MissingInputError, match=r"'gm_modulated'.*participant level again"):
        prepare_input(declared('resnet_crossvit'), {})
    with pytest.raises(MissingInputError, match=r'gone\.nii'):
        prepare_input(declared('vgg8'), {'t1w': tmp_path / 'gone.nii'})
    with pytest.raises(BundleError, match=r"'telepathy' is unknown; known are modulated_gm"):
        prepare_input({'kind': 'telepathy'}, files)
    with pytest.raises(BundleError, match=r'no affine .* `input\.affine`'):
        prepare_input(declared('vgg8') | {'affine': None}, files)


def test_every_kind_says_which_derivatives_it_needs():
    for arch in list_models():
        assert kind_of(model_info(arch).input).roles, arch


def test_coarser_grid_keeps_the_sum_and_finer_grid_the_values():
    rng = np.random.default_rng(0)
    data = np.zeros((24, 24, 24), np.float32)
    data[6:18, 6:18, 6:18] = rng.random((12, 12, 12))
    coarse = np.diag([3.0, 3, 3, 1])
    coarse[:3, 3] = 1
    summed = onto_grid(data, np.eye(4), (8, 8, 8), coarse)
    assert summed.sum() * 27 == pytest.approx(data.sum(), rel=0.05)
    np.testing.assert_array_equal(onto_grid(data, np.eye(4), data.shape, np.eye(4)), data)


def test_untrained_bundle_says_that_its_age_is_a_mean_over_bins(tmp_path):
    from bids_brainage.bundles.untrained import make_untrained_bundle

    options = {'age_range': [20.0, 90.0], 'n_bins': 35}
    bins = make_untrained_bundle('sfcn', 'bins', tmp_path, shape=(32, 32, 32), **options)
    assert bins.metadata['output'] == {
        'quantity': 'age', 'unit': 'year', 'kind': 'bins', **options,
    }  # fmt: skip
    scalar = make_untrained_bundle('vgg8', 'one', tmp_path, shape=(32, 32, 32))
    assert scalar.metadata['output']['kind'] == 'scalar'
