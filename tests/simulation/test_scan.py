import nibabel as nib
import numpy as np
import pytest
import torch

from bids_brainage.errors import OptionError
from bids_brainage.simulation import make_person, simulate_person, simulate_scan
from bids_brainage.simulation.lifespan import field
from bids_brainage.simulation.lifespan.person import FLOW
from bids_brainage.simulation.lifespan.population import load_population
from bids_brainage.simulation.render import draw_acquisition
from bids_brainage.simulation.scan import voxel_size
from bids_brainage.simulation.template import REGIONS, load_carver

VOXEL = (4.0, 4.0, 4.0)  # mm
VOLUME_TOLERANCE = 0.02  # of the target
RENDERED_TOLERANCE = 0.06  # labels of 4 mm voxels against fractions of the 2 mm anatomy
VENTRICLES = ('lateral_ventricle', 'temporal_horn', 'third_ventricle', 'fourth_ventricle')


@pytest.fixture(scope='module')
def person():
    return make_person(7, 'F', spacing=2)


@pytest.fixture(scope='module')
def brains(person):
    return {age: person.at_age(age) for age in (25.0, 55.0, 85.0)}


def scan_of(person, brains, age, session=0, voxel=VOXEL, orientation='RAS', **options):
    acquisition = draw_acquisition((7, session), orientation)
    return simulate_scan(person, age, acquisition, voxel, brain=brains[age], **options)


@pytest.fixture(scope='module')
def scan(person, brains):
    return scan_of(person, brains, 55.0)


def cortex(volumes):
    return sum(ml for name, ml in volumes.items() if name.endswith('_cortex'))


def labelled(scan, names):
    found = np.asarray(scan.labels.dataobj)
    return np.isin(found, [1 + REGIONS.index(name) for name in names])


def test_growth_is_that_of_the_warp(brains):
    points = field.grid_points(FLOW)
    for brain in brains.values():
        assert np.isfinite(brain.log_growth).all()  # a fold has no logarithm
        shrinking = field.jacobian(torch.from_numpy(brain.inverse), FLOW.spacing)
        there = points + torch.from_numpy(brain.inverse)
        log_growth = torch.from_numpy(brain.log_growth)[None]
        back = field.sample(log_growth, FLOW, there, border=True)[0]
        inside = load_carver().blocks.sum(0) > 0.5
        assert np.corrcoef(back[inside], -np.log(shrinking[inside]))[0, 1] > 0.95


def test_volumes_follow_the_curve(person, brains):
    population = load_population('regions')
    for age, brain in brains.items():
        wanted = population.volumes(age, person.deviation, 1.0)
        np.testing.assert_allclose(brain.share, wanted, rtol=2 * VOLUME_TOLERANCE)


def test_ageing_enlarges_ventricles_and_thins_cortex(person, brains):
    scans = [scan_of(person, brains, age) for age in sorted(brains)]
    ventricles = [sum(s.volumes[name] for name in VENTRICLES) for s in scans]
    grey = [cortex(s.volumes) for s in scans]
    assert ventricles[0] < ventricles[1] < ventricles[2]
    assert grey[0] > grey[1] > grey[2]
    young, old = (
        s.log_growth[labelled(s, ['lateral_ventricle'])].mean() for s in (scans[0], scans[2])
    )
    assert old > 0.3 + young


def test_rendered_volumes_are_the_targets(scan):
    cells = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    for names in (VENTRICLES, [n for n in REGIONS if 'white_matter' in n], ['brainstem']):
        found = labelled(scan, names).sum() * cells
        assert found == pytest.approx(sum(scan.volumes[n] for n in names), rel=0.12), names
    whole = (np.asarray(scan.labels.dataobj) > 0).sum() * cells
    assert whole == pytest.approx(sum(scan.volumes.values()), rel=RENDERED_TOLERANCE)


def test_head_size_is_plausible(scan):
    intracranial = sum(scan.volumes.values())
    assert 1000 < intracranial < 2000  # ml


def test_same_settings_give_the_same_scan(person, brains, scan):
    again = scan_of(person, brains, 55.0)
    np.testing.assert_array_equal(again.image.dataobj, scan.image.dataobj)
    np.testing.assert_array_equal(again.affine, scan.affine)


def test_retest_keeps_the_anatomy_and_changes_the_image(person, brains, scan):
    retest = scan_of(person, brains, 55.0, session=1)
    assert retest.volumes == scan.volumes
    first, second = (np.asarray(s.image.dataobj, float) for s in (scan, retest))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.98
    assert retest.parameters['acquisition'] != scan.parameters['acquisition']


def test_people_differ():
    first, second = (make_person((0, k), 'M', spacing=2) for k in range(2))
    assert not np.allclose(first.deviation, second.deviation, atol=0.01)
    assert (first.shape - second.shape).abs().mean() > 0.5
    assert not np.allclose(first.scale, second.scale, rtol=1e-3)


@pytest.mark.parametrize('orientation', ['LAS', 'PSR', 'LSA'])
def test_orientation_changes_storage_only(person, brains, scan, orientation):
    other = scan_of(person, brains, 55.0, orientation=orientation)
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
    centre = scan.template_points[:, labelled(scan, VENTRICLES)].mean(1)
    assert np.linalg.norm(centre - (0, -12, 8)) < 15  # they lie near the origin


def test_qform_and_sform_agree(scan):
    for image in (scan.image, scan.labels, scan.brain_mask):
        qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
        assert qform[1] == sform[1] == 1
        np.testing.assert_allclose(qform[0], sform[0], atol=1e-3)


@pytest.mark.parametrize('voxel', [(3.0, 3.0, 3.0), (2.0, 2.0, 6.0)])
def test_resolution_is_honoured(person, brains, scan, voxel):
    other = scan_of(person, brains, 55.0, voxel=voxel)
    np.testing.assert_allclose(other.image.header.get_zooms(), voxel, rtol=1e-4)
    cells = [abs(np.linalg.det(s.affine[:3, :3])) for s in (other, scan)]
    brain = [
        s.brain_mask.get_fdata().sum() * ml for s, ml in zip((other, scan), cells, strict=True)
    ]
    assert brain[0] == pytest.approx(brain[1], rel=0.03)


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


def test_skull_strip_leaves_the_brain_alone(person, brains, scan):
    stripped = scan_of(person, brains, 55.0, skull_strip=True)
    inside = np.asarray(scan.brain_mask.dataobj) > 0
    values = np.asarray(stripped.image.dataobj)
    assert (values[~inside] == 0).all()
    np.testing.assert_array_equal(values[inside], np.asarray(scan.image.dataobj)[inside])


def test_one_call_gives_a_scan():
    scan = simulate_person(3, 30.0, 'M', resolution=5.0, orientation='RAS', variation=0.0)
    volumes = np.array(list(scan.volumes.values()))
    typical = np.exp(load_population('regions').typical(30.0))
    np.testing.assert_allclose(volumes[1:] / volumes.sum(), typical, rtol=2 * VOLUME_TOLERANCE)
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
