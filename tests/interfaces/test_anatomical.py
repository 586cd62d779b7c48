"""The anatomical steps as Nipype runs them, and that storage order does not change an age."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.errors import ProcessingError
from bids_brainage.inputs.volumes import log_ratios
from bids_brainage.interfaces import anatomical
from bids_brainage.outputs.provenance import sha256_file
from bids_brainage.preprocessing.atlas import load_atlas
from bids_brainage.preprocessing.registration import dice, register
from bids_brainage.preprocessing.segmentation import segment
from bids_brainage.preprocessing.transforms import load_transform, voxel_points

VOLUME_TOLERANCE = 0.01
# Between orientations of one head: 3 mm voxels, registered on 4 mm; measured up to 0.3 years.
AGE_TOLERANCE_YEARS = 1.0
RESAMPLED_TOLERANCE_YEARS = 4.0
"""Other voxels of 3 mm see other parts of thin structures."""
STRUCTURE_TOLERANCE = 0.05  # of structures above 5 ml
LARGE_ML = 5.0


def read(path):
    return json.loads(path.read_text())


def array(path):
    return np.asarray(nib.load(path).dataobj)


def measure(scan, fixed):
    """Return structure volumes (ml) and the packaged model's age of a scan."""
    from bids_brainage.bundles.bundle import resolve_bundle
    from bids_brainage.bundles.places import model_dirs

    transform, _ = register(
        fixed.image, fixed.mask, fixed.affine, scan.data, scan.mask, scan.affine
    )
    atlas = load_atlas()
    points = transform.to_template(voxel_points(scan.mask, scan.affine))
    found = segment(scan.data[scan.mask], atlas.sample(points), atlas.structures)
    volumes = found.volumes_ml(scan.voxel_ml)
    bundle = resolve_bundle('volumes.lifespan', model_dirs(None)[-1:])
    age = bundle.instantiate()(log_ratios(volumes, bundle.input['features'])[None])[0]
    return volumes, float(age)


@pytest.fixture(scope='module')
def reference(head, fixed):
    return measure(head, fixed)


@pytest.mark.parametrize(
    ('settings', 'years'),
    [
        ({'orientation': 'LAS'}, AGE_TOLERANCE_YEARS),
        ({'orientation': 'PSR'}, AGE_TOLERANCE_YEARS),
        ({'slab_rotation': (20.0, -10.0, 15.0)}, RESAMPLED_TOLERANCE_YEARS),
    ],
    ids=['LAS', 'PSR', 'oblique'],
)
def test_orientation_does_not_change_volumes_or_age(take_scan, fixed, reference, settings, years):
    scan = take_scan('_'.join(map(str, settings)), **settings)
    volumes, age = measure(scan, fixed)
    assert age == pytest.approx(reference[1], abs=years)
    for name, expected in reference[0].items():
        if expected > LARGE_ML:
            assert volumes[name] == pytest.approx(expected, rel=STRUCTURE_TOLERANCE), name


def test_check_describes_the_file(derivatives):
    facts = read(derivatives['facts'])
    assert facts['sha256'] == sha256_file(derivatives['source'])
    assert facts['skull_stripped'] is True
    assert facts['voxel_size_mm'] == [3.0, 3.0, 3.0]
    image = nib.load(derivatives['t1w_native'])
    assert image.get_data_dtype() == np.float32
    assert nib.aff2axcodes(image.affine) == ('R', 'A', 'S')


def test_stripped_brain_is_kept_as_given(derivatives, head):
    measures = read(derivatives['mask_measures'])
    assert measures['mask_method'] == 'as given'
    mask = array(derivatives['mask_native']) > 0
    assert dice(mask, head.mask) > 0.98
    assert measures['mask_ml'] == pytest.approx(mask.sum() * 0.027, rel=1e-3)
    assert measures['border_cm2'] == 0


def test_impossible_brain_is_refused(derivatives, tmp_path):
    image = nib.load(derivatives['t1w_native'])
    tiny = np.asarray(image.dataobj).copy()
    tiny[30:] = 0
    nib.save(nib.Nifti1Image(tiny * (np.arange(84) > 50), image.affine), tmp_path / 'half.nii.gz')
    step = anatomical.ExtractBrain(t1w=str(tmp_path / 'half.nii.gz'), facts=derivatives['facts'])
    with pytest.raises(ProcessingError, match=r'stripped\.nii\.gz.*expected 450 to 2300 ml'):
        step.run(cwd=str(tmp_path))
    assert array(tmp_path / anatomical.MASK).any()  # kept, so that the report can show it


def test_maps_share_the_output_grid_and_the_brain(derivatives, archive):
    from bids_brainage.preprocessing.template import find_template

    template = nib.load(find_template(archive, resolution=2).mask)
    inside = np.asarray(template.dataobj) > 0
    for name in ('t1w', 'mask', 'tissues', 'structures', 'gm', 'gm_modulated'):
        image = nib.load(derivatives[name])
        assert image.shape == template.shape, name
        np.testing.assert_allclose(image.affine, template.affine)
    mask = array(derivatives['mask']) > 0
    assert dice(mask, inside) > 0.97
    assert (array(derivatives['t1w'])[~mask] == 0).all()
    tissues, structures = array(derivatives['tissues']), array(derivatives['structures'])
    assert set(np.unique(tissues)) == {0, 1, 2, 3}
    assert set(np.unique(structures)) <= set(range(16))
    # labels agree with each other: grey matter structures are grey matter
    grey = [s.index for s in load_atlas().structures if s.tissue == 'GM']
    same = np.isin(structures, grey) == (tissues == 1)
    assert same[mask].mean() > 0.95


def test_aligned_brain_keeps_its_proportions(derivatives, archive):
    """Its volume is that of the person times one factor; a deformation gives the template's."""
    from bids_brainage.preprocessing.template import find_template

    template = nib.load(find_template(archive, resolution=2).mask)
    inside = np.asarray(template.dataobj) > 0
    mask, image = array(derivatives['mask_affine']) > 0, array(derivatives['t1w_affine'])
    assert image.shape == template.shape
    assert (image[~mask] == 0).all() and (image[mask] > 0).mean() > 0.99
    transform = load_transform(derivatives['transform_affine'])
    assert not transform.displacement.any() and not transform.inverse_displacement.any()
    native_ml = (array(derivatives['mask_native']) > 0).sum() * 0.027
    factor = np.linalg.det(transform.affine[:3, :3])
    assert mask.sum() * 0.008 * factor == pytest.approx(native_ml, rel=VOLUME_TOLERANCE)
    deformed = array(derivatives['mask']) > 0
    assert 0.85 < dice(mask, inside) < dice(deformed, inside)


def test_modulated_grey_matter_has_the_native_volume(derivatives):
    native = array(derivatives['gm_native']).sum(dtype=float) * 0.027
    template = array(derivatives['gm_modulated']).sum(dtype=float) * 0.008
    assert template == pytest.approx(native, rel=VOLUME_TOLERANCE)
    volumes = read(derivatives['volumes'])['volumes_ml']
    grey = [s.name for s in load_atlas().structures if s.tissue == 'GM']
    assert sum(volumes[name] for name in grey) == pytest.approx(native, rel=1e-4)
    assert sum(volumes.values()) == pytest.approx(read(derivatives['mask_measures'])['mask_ml'])


def test_side_file_names_every_structure(derivatives):
    facts = derivatives['structure_facts']
    assert facts['VolumesML'] == read(derivatives['volumes'])['volumes_ml']
    assert facts['LabelMap'] == {str(s.index): s.name for s in load_atlas().structures}


def test_transforms_on_disk_are_each_others_inverse(derivatives):
    import SimpleITK as sitk

    forward = sitk.ReadTransform(str(derivatives['to_template']))
    backward = sitk.ReadTransform(str(derivatives['to_native']))
    for point in [(0.0, 0.0, 0.0), (20.0, -30.0, 25.0), (-35.0, 10.0, 10.0)]:
        there = forward.TransformPoint(point)
        assert np.linalg.norm(np.subtract(there, point)) > 1
        assert np.linalg.norm(np.subtract(backward.TransformPoint(there), point)) < 0.5


def test_quality_has_every_measure_and_no_wrong_flag(derivatives):
    quality = read(derivatives['quality'])
    # the only thing wrong with this scan are its voxels of 3 mm
    assert quality['flags'] == ['anisotropic']
    assert quality['measures']['slice_thickness_mm'] == 3.0
    assert quality['measures']['overlap'] > 0.97
    assert 1.12 < quality['measures']['contrast'] < 2.6


def test_sloppy_runs_are_flagged(derivatives, tmp_path):
    step = anatomical.AssessQuality(
        facts=derivatives['facts'], mask_measures=derivatives['mask_measures'],
        scores=derivatives['scores'], volumes=derivatives['volumes'], sloppy=True,
    )  # fmt: skip
    quality = step.run(cwd=str(tmp_path)).outputs.quality
    with open(quality) as stream:  # noqa: PTH123 - a path of Nipype
        assert json.load(stream)['flags'] == ['anisotropic', 'sloppy']
