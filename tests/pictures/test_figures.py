import base64
import io
import re
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from report_tree import save_head

from bids_brainage.errors import OutputError, UnusableImageError
from bids_brainage.pictures import svg
from bids_brainage.pictures.colours import colour_map
from bids_brainage.pictures.figures import (
    colour_limit,
    plot_mask,
    plot_regions,
    plot_registration,
    plot_saliency,
    plot_segmentation,
)
from bids_brainage.pictures.mosaic import (
    bounding_box,
    load_volume,
    outline,
    paint,
    plan_mosaic,
    world_coordinate,
)
from bids_brainage.pictures.summary import plot_summary

#: one pixel of the picture, in mm, at the scale the test heads get
PIXEL_MM = 1.5
SIZE_LIMIT = 600_000
PICTURES = ['mask', 'registration', 'segmentation', 'regions', 'saliency']


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return save_head(tmp_path_factory.mktemp('head'))


@pytest.fixture(scope='module')
def thick(tmp_path_factory):
    return save_head(tmp_path_factory.mktemp('thick'), zooms=(1.0, 1.0, 3.0))


def parse(path):
    return ElementTree.fromstring(path.read_text(encoding='utf-8'))


def rasters(root):
    uris = [e.get('href') for e in root.iter(f'{{{svg.SVG_NAMESPACE}}}image')]
    return [Image.open(io.BytesIO(base64.b64decode(uri.split(',')[1]))) for uri in uris]


def words(root):
    return [e.text for e in root.iter(f'{{{svg.SVG_NAMESPACE}}}text')]


def draw(name, images, out):
    if name == 'mask':
        plot_mask(images['t1w'], images['mask'], out)
    elif name == 'registration':
        plot_registration(images['t1w'], images['t1w'], out, images['mask'], images['mask'])
    elif name == 'segmentation':
        plot_segmentation(images['t1w'], images['dseg'], out)
    elif name == 'regions':
        plot_regions(images['t1w'], images['dseg'], out)
    else:
        plot_saliency(images['t1w'], images['map'], out, unit='years per voxel', signed=True)


@pytest.mark.parametrize('name', PICTURES)
def test_pictures_are_safe_small_labelled_and_repeatable(name, images, tmp_path):
    first, second = tmp_path / 'a.svg', tmp_path / 'b.svg'
    draw(name, images, first)
    draw(name, images, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < SIZE_LIMIT
    root = parse(first)
    assert {'L', 'R', 'A', 'P', 'S', 'I'} <= set(words(root))
    assert any('neurological' in word for word in words(root))
    assert svg.sanitise(first.read_text(encoding='utf-8')).startswith('<svg')
    assert not re.search(r'(href|src)="(?!data:image/)', first.read_text(encoding='utf-8'))
    assert max(np.asarray(picture).max() for picture in rasters(root)) > 200


@pytest.mark.parametrize('name', PICTURES)
def test_thick_slices_keep_the_proportions_of_the_head(name, images, thick, tmp_path):
    def size(source, out):
        draw(name, source, out)
        return rasters(parse(out))[0].size

    fine, coarse = size(images, tmp_path / 'a.svg'), size(thick, tmp_path / 'b.svg')
    assert coarse[0] == fine[0]
    assert coarse[1] == pytest.approx(fine[1], rel=0.03)


def test_ellipsoid_in_thick_slices_is_drawn_at_true_size(thick):
    head = load_volume(thick['t1w'])
    inside = load_volume(thick['mask'])
    assert head.zooms == pytest.approx([1, 1, 3])
    mosaic = plan_mosaic(head, *bounding_box(inside.data > 0.5, inside.zooms))
    painted = paint(mosaic, inside) > 0.5
    (middle,) = [t for t in mosaic.tiles if t.plane == 'sagittal' and abs(t.position - 84.5) < 2]
    cut = painted[middle.y : middle.y + middle.height, middle.x : middle.x + middle.width]
    tall = np.flatnonzero(cut.any(axis=1)).size / mosaic.scale
    wide = np.flatnonzero(cut.any(axis=0)).size / mosaic.scale
    assert wide == pytest.approx(160, abs=2 * PIXEL_MM)
    assert tall == pytest.approx(120, abs=3 + PIXEL_MM)


@pytest.mark.parametrize('codes', ['RAS', 'LPS', 'PSR', 'AIL', 'SLA'])
def test_left_of_the_person_is_left_whatever_the_storage_order(codes, tmp_path):
    data = np.zeros((40, 50, 30), dtype=np.float32)
    data[2:12, 30:48, 18:28] = 100  # left, anterior, superior
    data[20:38, 5:45, 2:28] = 30
    image = nib.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0]))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), nib.orientations.axcodes2ornt(codes)
    )
    path = tmp_path / 'image.nii.gz'
    nib.save(image.as_reoriented(turn), path)
    volume = load_volume(path)
    mosaic = plan_mosaic(volume, np.zeros(3), (np.array(volume.data.shape) - 1) * volume.zooms)
    painted = paint(mosaic, volume)
    for tile in mosaic.tiles:
        cut = painted[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] > 80
        if not cut.any():
            continue
        rows, columns = (indices.mean() for indices in np.nonzero(cut))
        assert rows < tile.height / 2  # anterior or superior is up
        assert (columns < tile.width / 2) == (tile.plane != 'sagittal')  # left, or anterior right
    assert (painted > 80).any()


def test_overlay_on_another_grid_lies_on_the_same_place(images, tmp_path):
    head = load_volume(images['t1w'])
    mask = nib.load(images['mask'])
    shifted = nib.Nifti1Image(
        mask.get_fdata()[10:, 5:][::-1], mask.affine @ _flip_and_crop(mask.shape[0] - 11, 5)
    )
    path = tmp_path / 'other_grid.nii.gz'
    nib.save(shifted, path)
    low, high = bounding_box(load_volume(images['mask']).data > 0.5, head.zooms)
    mosaic = plan_mosaic(head, low, high)
    there = paint(mosaic, load_volume(path)) > 0.5
    here = paint(mosaic, load_volume(images['mask'])) > 0.5
    assert (there != here).mean() < 0.002


def _flip_and_crop(last, start):
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:2, 3] = 10 + last, start
    return affine


def test_slice_positions_are_world_coordinates(images):
    head = load_volume(images['t1w'])
    mosaic = plan_mosaic(head, np.zeros(3), (np.array(head.data.shape) - 1) * head.zooms)
    middle = [tile for tile in mosaic.tiles if tile.plane == 'sagittal'][2]
    assert world_coordinate(mosaic, middle) == pytest.approx(0.0, abs=1.0)


def test_outline_encloses_the_painted_area():
    class Square:
        tiles = (type('Tile', (), {'x': 10, 'y': 20, 'width': 40, 'height': 30})(),)

    painted = np.zeros((60, 60))
    painted[25:35, 20:40] = 1
    path = outline(Square, painted)
    start = [float(number) for number in re.findall(r'-?[\d.]+', path.split('l')[0])]
    steps = np.array(re.findall(r'-?[\d.]+', path.split('l')[1]), dtype=float).reshape(-1, 2)
    points = np.vstack([start, start + np.cumsum(steps, axis=0)])
    assert points.min(axis=0) == pytest.approx([20, 25], abs=0.6)
    assert points.max(axis=0) == pytest.approx([40, 35], abs=0.6)


def test_signed_map_shows_both_signs_and_the_limits_in_its_unit(images, tmp_path):
    out = tmp_path / 's.svg'
    plot_saliency(images['t1w'], images['map'], out, unit='years per voxel', signed=True)
    label = ' '.join(word for word in words(parse(out)) if word)
    assert '−4.0×10⁻³' in label
    assert '+4.0×10⁻³ years per voxel' in label
    colour = np.asarray(rasters(parse(out))[0]).astype(int)
    excess = colour[..., 0] - colour[..., 2]
    assert (excess > 60).mean() > 0.005
    assert (excess < -60).mean() > 0.005


def test_empty_map_and_empty_mask_are_drawn_without_error(images, tmp_path):
    t1w = nib.load(images['t1w'])
    path = tmp_path / 'zero.nii.gz'
    nib.save(nib.Nifti1Image(np.zeros(t1w.shape, np.float32), t1w.affine), path)
    plot_saliency(images['t1w'], path, tmp_path / 's.svg', unit='a.u.', signed=False)
    assert 'The map is zero everywhere.' in words(parse(tmp_path / 's.svg'))
    plot_mask(images['t1w'], path, tmp_path / 'm.svg')
    assert not list(parse(tmp_path / 'm.svg').iter(f'{{{svg.SVG_NAMESPACE}}}path'))


def test_unreadable_image_names_the_file(images, tmp_path):
    broken = tmp_path / 'broken.nii.gz'
    broken.write_bytes(images['t1w'].read_bytes()[:2000])
    with pytest.raises(UnusableImageError, match=r'broken\.nii\.gz'):
        plot_mask(broken, images['mask'], tmp_path / 'm.svg')


def test_colour_limit_ignores_zeros_and_sign():
    assert colour_limit(np.array([0.0] * 1000 + [-2.0] * 200)) == 2.0
    assert colour_limit(np.zeros(5)) == 0.0


def test_colours_differ_in_brightness_not_only_in_hue():
    weights = np.array([0.2126, 0.7152, 0.0722])
    ramp = colour_map(np.linspace(0, 1, 20), signed=False) @ weights
    assert (np.diff(ramp) > 0).all()
    both = colour_map(np.linspace(-1, 1, 21), signed=True) @ weights
    assert both[0] > both[5] > both[10] < both[15] < both[20]


@pytest.mark.parametrize(
    'inner',
    [
        '<script>alert(1)</script>',
        '<foreignObject><b/></foreignObject>',
        '<rect onclick="x()"/>',
        '<image href="https://example.org/a.png"/>',
        '<style>@import "https://example.org/a.css";</style>',
        '<rect fill="url(https://example.org/#a)"/>',
        '<a href="javascript:x()"><text>x</text></a>',
        '<rect>',
    ],
)
def test_foreign_svg_content_is_refused(inner):
    with pytest.raises(OutputError):
        svg.sanitise(f'<svg xmlns="{svg.SVG_NAMESPACE}">{inner}</svg>')


def test_entities_are_refused():
    with pytest.raises(OutputError):
        svg.sanitise('<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>')


def test_map_in_one_corner_is_shown_on_slices_through_the_whole_brain(images, tmp_path):
    """A map that covers only a slab must not crop the picture to the slab."""
    whole = nib.load(images['map'])
    data = np.zeros(whole.shape, np.float32)
    data[40:44, 50:54, 60:64] = 1.0
    nib.save(nib.Nifti1Image(data, whole.affine), tmp_path / 'slab.nii.gz')
    places = []
    for values in (images['map'], tmp_path / 'slab.nii.gz'):
        out = tmp_path / 'picture.svg'
        plot_saliency(images['t1w'], values, out, unit='year', signed=True, mask=images['mask'])
        places.append([text for text in words(parse(out)) if text.endswith(' mm')])
    assert places[0] == places[1]
    heights = [float(p.split('= ')[1][:-3].replace('−', '-')) for p in places[0] if p[0] == 'z']
    assert max(heights) - min(heights) > 80  # the brain is 120 mm tall


def test_tissue_legend_has_the_colours_of_the_picture(images, tmp_path):
    out = tmp_path / 'dseg.svg'
    plot_segmentation(images['t1w'], images['dseg'], out)
    root = parse(out)
    picture = np.asarray(rasters(root)[0], float).reshape(-1, 3)
    keys = [e.get('fill') for e in root.iter(f'{{{svg.SVG_NAMESPACE}}}rect')][1:]
    assert len(keys) == 3
    for colour in keys:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(picture - wanted).max(axis=1) < 12).mean() > 0.01


def test_failed_mask_is_drawn_and_so_is_an_image_without_one(images, tmp_path):
    empty = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nib.save(empty, tmp_path / 'empty.nii.gz')
    for mask in (None, tmp_path / 'empty.nii.gz'):
        out = tmp_path / 'mask.svg'
        plot_mask(images['t1w'], mask, out)
        assert 'T1w image, without brain mask' in out.read_text('utf-8')
        assert np.asarray(rasters(parse(out))[0]).max() > 200


def test_summary_cuts_where_the_map_is_strongest(images, tmp_path):
    whole = nib.load(images['map'])
    data = np.zeros(whole.shape, np.float32)
    data[45:48, 60:63, 50:53] = 1.0
    nib.save(nib.Nifti1Image(data, whole.affine), tmp_path / 'spot.nii.gz')
    centre = whole.affine @ [46, 61, 51, 1]
    out = tmp_path / 'summary.svg'
    plot_summary(images['t1w'], images['mask'], out, tmp_path / 'spot.nii.gz', unit='year')
    root = parse(out)
    places = {
        text[0]: float(text.split('= ')[1][:-3].replace('−', '-'))
        for text in words(root)
        if text.endswith(' mm')
    }
    for name, expected in zip('xyz', centre, strict=False):
        assert places[name] == pytest.approx(expected, abs=2.1)
    picture = np.asarray(rasters(root)[0], float)
    coloured = picture.max(axis=-1) - picture.min(axis=-1) > 60
    half = len(coloured) // 2
    assert coloured[half:].sum() > 100  # the map is in the lower row only
    assert coloured[:half].sum() == 0


def test_summary_without_a_map_is_one_row_of_grey(images, tmp_path):
    out = tmp_path / 'summary.svg'
    plot_summary(images['t1w'], images['mask'], out)
    root = parse(out)
    assert sum(text.endswith(' mm') for text in words(root)) == 3
    picture = np.asarray(rasters(root)[0])
    assert picture.ndim == 2
