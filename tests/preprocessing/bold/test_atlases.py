"""Atlases by name, by path with their tables, and by TemplateFlow label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.errors import MissingInputError, OptionError, UnusableImageError
from bids_brainage.preprocessing.bold import atlases
from bids_brainage.preprocessing.bold.confounds import ConfoundModel, Denoising
from bids_brainage.preprocessing.bold.connectome import compute_connectome, region_coverage

SHARED = Path(__file__).parents[4] / 'shared' / 'data' / 'atlases'
shared = pytest.mark.skipif(not SHARED.is_dir(), reason='development data not there')


def test_power_has_264_spheres_in_the_published_networks():
    atlas = atlases.resolve_atlas()
    assert (atlas.label, len(atlas.regions)) == ('power2011', 264)
    count = Counter(atlas.networks())
    published = {'DefaultMode': 58, 'Visual': 31, 'FrontoParietal': 25, 'Salience': 18}
    published |= {'SomatomotorHand': 30, 'SomatomotorMouth': 5, 'CinguloOpercular': 14}
    published |= {'Auditory': 13, 'Subcortical': 13, 'DorsalAttention': 11}
    published |= {'VentralAttention': 9, 'MemoryRetrieval': 5, 'Cerebellar': 4, 'Uncertain': 28}
    assert count == published
    regions = {r.index: r for r in atlas.regions}
    assert all(r.xyz[2] < -10 and r.xyz[1] < -50 for r in regions.values()
               if r.network == 'Cerebellar')  # fmt: skip
    assert all(r.xyz[1] < -40 for r in regions.values() if r.network == 'Visual')
    assert regions[1].hemisphere == 'L'


@pytest.mark.parametrize(('name', 'n'), [('dosenbach2010', 160), ('seitzman2018', 300)])
def test_other_coordinate_atlases(name, n):
    atlas = atlases.resolve_atlas(name)
    assert len(atlas.regions) == n
    assert len(set(atlas.names())) == n
    assert all(atlas.networks())
    assert atlas.regions[0].row()['radius'] == 5.0


def _image(path, values=(1, 2, 5)):
    data = np.zeros((12, 12, 12), np.int16)
    for i, value in enumerate(values):
        data[2 + 3 * i : 4 + 3 * i, 4:8, 4:8] = value
    affine = np.diag([4.0, 4, 4, 1])
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def test_label_image_with_table_beside_it(tmp_path):
    image = _image(tmp_path / 'tpl-X_atlas-My_res-02_dseg.nii.gz')
    table = tmp_path / 'tpl-X_atlas-My_dseg.tsv'
    table.write_text(
        'index\tname\themisphere\n0\tbackground\tn/a\n1\t7Networks_LH_Vis_1\tn/a\n'
        '2\tsame\tRH\n5\tsame\tL\n9\tabsent\tL\n'
    )
    atlas = atlases.resolve_atlas(str(image))
    assert [r.index for r in atlas.regions] == [1, 2, 5]
    assert atlas.names() == ['7Networks_LH_Vis_1', 'same_2', 'same_5']
    assert atlas.networks() == ['Vis', '', '']
    assert [r.hemisphere for r in atlas.regions] == ['L', 'R', 'L']


def test_columns_of_label_images_keep_the_order_of_the_table(tmp_path):
    image = _image(tmp_path / 'a.nii.gz', values=(5, 1, 2))
    atlas = atlases.label_atlas(image, None)
    assert atlas.names() == ['region1', 'region2', 'region5']
    labels = np.asarray(nib.load(image).dataobj)
    affine = nib.load(image).affine
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(6, 40))
    series = 100 + waves[labels]
    mask = nib.Nifti1Image(np.ones(labels.shape, np.uint8), affine)
    model = ConfoundModel((), np.zeros((40, 1)), np.ones(40, bool), Denoising(), 20.0)
    found = compute_connectome(nib.Nifti1Image(series, affine), mask, atlas, model, 2.0)
    from bids_brainage.preprocessing.bold.connectome import clean_series

    true = clean_series(waves[[1, 2, 5]].T, model, 2.0)
    np.testing.assert_allclose(found.series, true, atol=1e-4)
    half = np.ones(labels.shape, np.uint8)
    half[labels == 2] = 0
    assert list(region_coverage(nib.Nifti1Image(half, affine), atlas)) == [1, 0, 1]


def test_wrong_tables_and_images_are_refused(tmp_path):
    image = _image(tmp_path / 'a.nii.gz')
    (tmp_path / 'few.tsv').write_text('index\tname\n1\ta\n2\tb\n')
    with pytest.raises(UnusableImageError, match=r'values \[5\]'):
        atlases.label_atlas(image, tmp_path / 'few.tsv')
    (tmp_path / 'odd.tsv').write_text('x\ty\n1\ta\n')
    with pytest.raises(UnusableImageError, match='expected at least index and name'):
        atlases.label_atlas(image, tmp_path / 'odd.tsv')
    (tmp_path / 'text.tsv').write_text('index\tname\none\ta\n')
    with pytest.raises(UnusableImageError, match='no whole number'):
        atlases.label_atlas(image, tmp_path / 'text.tsv')
    with pytest.raises(MissingInputError, match='region table'):
        atlases.label_atlas(image, tmp_path / 'none.tsv')
    with pytest.raises(MissingInputError, match='atlas image'):
        atlases.resolve_atlas(str(tmp_path / 'none.nii.gz'))
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 5, 5)), np.eye(4)),
             tmp_path / 'prob.nii')  # fmt: skip
    with pytest.raises(UnusableImageError, match='whole numbers'):
        atlases.resolve_atlas(str(tmp_path / 'prob.nii'))


def test_unknown_names_say_what_there_is():
    with pytest.raises(OptionError, match='power2011, dosenbach2010'):
        atlases.resolve_atlas('not an atlas')


def test_templateflow_atlas_that_is_not_here_is_missing():
    with pytest.raises(MissingInputError, match='Schaefer2018:desc-100Parcels7Networks'):
        atlases.resolve_atlas('Schaefer2018:desc-100Parcels7Networks')


@pytest.mark.shared
@shared
@pytest.mark.parametrize('n', [100, 200])
def test_schaefer_by_path(n):
    atlas = atlases.resolve_atlas(str(SHARED / f'schaefer{n}x7MNI.nii.gz'))
    assert len(atlas.regions) == n
    assert len(set(atlas.networks())) == 7
    assert Counter(r.hemisphere for r in atlas.regions) == {'L': n // 2, 'R': n // 2}
