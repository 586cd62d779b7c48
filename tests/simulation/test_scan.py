import nibabel as nib
import numpy as np
import pytest

from bids_brainage.errors import OptionError
from bids_brainage.simulation import make_person, simulate_person, simulate_scan
from bids_brainage.simulation.ageing import volume_ratio
from bids_brainage.simulation.anatomy import REGIONS
from bids_brainage.simulation.person import SHAPE_SPACING
from bids_brainage.simulation.render import draw_acquisition
from bids_brainage.simulation.scan import voxel_size
from bids_brainage.simulation.warp import compose, jacobian_determinant

VOXEL = (4.0, 4.0, 4.0)  # mm
INVERSE_TOLERANCE = 0.3  # mm, mean
VOLUME_TOLERANCE = 0.02  # of the target
RENDERED_TOLERANCE = 0.06  # 4 mm voxels against the 2 mm anatomy


@pytest.fixture(scope='module')
def person():
    return make_person(7, 'F', spacing=2)


@pytest.fixture(scope='module')
def warps(person):
    return {age: person.at_age(age) for age in (25.0, 55.0, 85.0)}


def scan_of(person, warps, age, session=0, voxel=VOXEL, orientation='RAS', **options):
    acquisition = draw_acquisition((7, session), orientation)
    return simulate_scan(person, age, acquisition, voxel, warp=warps[age], **options)


@pytest.fixture(scope='module')
def scan(person, warps):
    return scan_of(person, warps, 55.0)


def test_warps_invert_and_do_not_fold(person, warps):
    for warp in warps.values():
        rest = np.linalg.norm(compose(warp.inverse, warp.forward, 3.0), axis=0)
        inside = person.regions.sum(0) > 0.5
        assert rest[inside].mean() < INVERSE_TOLERANCE
        assert np.isfinite(warp.log_jacobian).all()  # a fold has no logarithm


def test_volumes_follow_the_curve(person, warps):
    driven = [k for k, name in enumerate(REGIONS) if name != 'sulcal_csf']
    for age, warp in warps.items():
        wanted = volume_ratio(age + person.gap) * np.exp(person.deviation)
        np.testing.assert_allclose(warp.achieved[driven], wanted, rtol=VOLUME_TOLERANCE)


def test_ageing_enlarges_ventricles_and_thins_cortex(person, warps):
    scans = [scan_of(person, warps, age) for age in sorted(warps)]
    ventricles = [s.volumes['ventricles'] for s in scans]
    cortex = [s.volumes['cortex'] for s in scans]
    assert ventricles[0] < ventricles[1] < ventricles[2]
    assert cortex[0] > cortex[1] > cortex[2]
    growth = scans[2].ageing_log_jacobian
    labels = np.asarray(scans[2].labels.dataobj)
    assert growth[labels == 1].mean() > 0.3 > 0 > growth[labels == 3].mean()


def test_rendered_volumes_are_the_targets(person, warps, scan):
    start = person.regions.sum((1, 2, 3), dtype='f8') * 27 / 1000 * np.prod(person.scale)
    wanted = start * warps[55.0].achieved
    big = [k for k, v in enumerate(wanted) if v > 30]
    found = np.array(list(scan.volumes.values()))
    np.testing.assert_allclose(found[big], wanted[big], rtol=RENDERED_TOLERANCE)


def test_head_size_is_plausible(scan):
    intracranial = sum(scan.volumes.values())
    assert 1000 < intracranial < 2000  # ml


def test_same_settings_give_the_same_scan(person, warps, scan):
    again = scan_of(person, warps, 55.0)
    np.testing.assert_array_equal(again.image.dataobj, scan.image.dataobj)
    np.testing.assert_array_equal(again.affine, scan.affine)


def test_retest_keeps_the_anatomy_and_changes_the_image(person, warps, scan):
    retest = scan_of(person, warps, 55.0, session=1)
    for name, volume in scan.volumes.items():
        assert retest.volumes[name] == pytest.approx(volume, rel=RENDERED_TOLERANCE), name
    first, second = (np.asarray(s.image.dataobj, float) for s in (scan, retest))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.98
    assert retest.parameters['acquisition'] != scan.parameters['acquisition']


def test_people_differ():
    first, second = (make_person((0, k), 'M', spacing=2) for k in range(2))
    assert first.gap != second.gap
    for person in (first, second):
        assert jacobian_determinant(person.shape_inverse, SHAPE_SPACING).min() > 0.3
    assert np.abs(first.tissue - second.tissue).mean() > 0.003
    assert not np.allclose(first.scale, second.scale, rtol=1e-3)


@pytest.mark.parametrize('orientation', ['LAS', 'PSR', 'LSA'])
def test_orientation_changes_storage_only(person, warps, scan, orientation):
    other = scan_of(person, warps, 55.0, orientation=orientation)
    assert nib.aff2axcodes(other.image.affine) == tuple(orientation)
    canonical = nib.as_closest_canonical(other.image)
    np.testing.assert_array_equal(canonical.dataobj, scan.image.dataobj)
    np.testing.assert_allclose(canonical.affine, scan.affine, atol=1e-4)
    assert other.tissue['gm'].shape == other.image.shape == other.template_points.shape[1:]


def test_template_points_follow_the_scanner_axes(scan):
    inside = np.asarray(scan.brain_mask.dataobj) > 0
    voxels = np.argwhere(inside)
    world = nib.affines.apply_affine(scan.affine, voxels)
    template = scan.template_points[:, inside].T
    for k in range(3):
        assert np.corrcoef(world[:, k], template[:, k])[0, 1] > 0.95
    labels = np.asarray(scan.labels.dataobj)
    centre = scan.template_points[:, labels == 1].mean(1)  # ventricles lie near the origin
    assert np.linalg.norm(centre - (0, -12, 8)) < 15


def test_qform_and_sform_agree(scan):
    for image in (scan.image, scan.labels, scan.brain_mask):
        qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
        assert qform[1] == sform[1] == 1
        np.testing.assert_allclose(qform[0], sform[0], atol=1e-3)


@pytest.mark.parametrize('voxel', [(3.0, 3.0, 3.0), (2.0, 2.0, 6.0)])
def test_resolution_is_honoured(person, warps, voxel):
    other = scan_of(person, warps, 55.0, voxel=voxel)
    np.testing.assert_allclose(other.image.header.get_zooms(), voxel, rtol=1e-4)
    assert other.volumes['cortex'] == pytest.approx(
        scan_of(person, warps, 55.0).volumes['cortex'], rel=0.06
    )


def test_intensities_look_like_a_t1w(scan):
    image = np.asarray(scan.image.dataobj, float)
    white, grey, fluid = (
        np.median(image[scan.tissue[name] > 0.9]) for name in ('wm', 'gm', 'csf')
    )
    air = np.median(image[:4, :4])
    assert white > grey > fluid > air
    outside = np.asarray(scan.labels.dataobj) == 0
    assert np.percentile(image[outside], 99) > grey  # a head, not only a brain


def test_tissue_fractions_fill_the_mask(scan):
    total = sum(scan.tissue.values())
    inside = np.asarray(scan.brain_mask.dataobj) > 0
    assert total.max() < 1.001
    np.testing.assert_array_equal(total > 0.5, inside)


def test_skull_strip_leaves_the_brain_alone(person, warps, scan):
    stripped = scan_of(person, warps, 55.0, skull_strip=True)
    inside = np.asarray(scan.brain_mask.dataobj) > 0
    values = np.asarray(stripped.image.dataobj)
    assert (values[~inside] == 0).all()
    np.testing.assert_array_equal(values[inside], np.asarray(scan.image.dataobj)[inside])


def test_one_call_gives_a_scan():
    scan = simulate_person(3, 30.0, 'M', resolution=5.0, orientation='RAS', variation=0.0)
    assert scan.parameters['brain_age_gap'] == 0
    assert scan.image.get_data_dtype() == np.int16
    assert max(scan.image.shape) < 60


@pytest.mark.parametrize(
    ('sex', 'resolution', 'match'),
    [('X', 4.0, 'F or M'), ('F', 0.1, 'between 0.5'), ('F', (1.0, 2.0), 'one or three')],
)
def test_what_cannot_be_simulated_is_refused(sex, resolution, match):
    with pytest.raises(OptionError, match=match):
        voxel_size(resolution)
        make_person(0, sex, spacing=2)
