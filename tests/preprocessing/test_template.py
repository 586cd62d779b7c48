"""The packaged template, as TemplateFlow's own client finds it."""

import nibabel as nib
import numpy as np
import pytest

from bids_brainage.errors import MissingInputError
from bids_brainage.preprocessing import template
from bids_brainage.preprocessing.template import (
    DEFAULT_SPACE,
    find_template,
    install_packaged_template,
    main,
)

SHAPES = {1: (197, 233, 189), 2: (99, 117, 95)}


def test_templateflow_finds_what_was_laid_out(archive):
    from templateflow.client import TemplateFlowClient

    client = TemplateFlowClient(root=archive)
    assert DEFAULT_SPACE in client.templates()
    for resolution, shape in SHAPES.items():
        path = client.get(DEFAULT_SPACE, resolution=resolution, desc='brain', suffix='T1w')
        image = nib.load(path)
        assert image.shape == shape
        assert nib.aff2axcodes(image.affine) == ('R', 'A', 'S')
        np.testing.assert_allclose(image.header.get_zooms(), resolution)
    metadata = client.get_metadata(DEFAULT_SPACE)
    assert metadata['Identifier'] == DEFAULT_SPACE
    assert metadata['res']['2']['shape'] == list(SHAPES[2])


def test_files_are_a_brain_its_mask_and_its_grey_matter(archive):
    found = find_template(archive, resolution=2)
    t1w, mask, grey = (
        np.asarray(nib.load(path).dataobj) for path in (found.t1w, found.mask, found.gm)
    )
    assert set(np.unique(mask)) == {0, 1}
    assert 1500 < mask.sum() * 8 / 1000 < 2200  # ml
    assert t1w[mask == 1].mean() > 10 * np.abs(t1w[mask == 0]).mean()
    assert 0 <= grey.min() <= grey.max() <= 1
    assert (archive / f'tpl-{DEFAULT_SPACE}' / 'LICENSE').read_text().startswith('Copyright')


@pytest.mark.parametrize('resolution', [1, 2])
def test_files_are_what_the_loaders_of_nilearn_give(archive, resolution):
    from nilearn import datasets

    found = find_template(archive, resolution=resolution)
    for path, load in (
        (found.t1w, datasets.load_mni152_template),
        (found.mask, datasets.load_mni152_brain_mask),
        (found.gm, datasets.load_mni152_gm_template),
    ):
        image, expected = nib.load(path), load(resolution=resolution)
        wanted = np.asarray(expected.dataobj)
        np.testing.assert_allclose(np.asarray(image.dataobj), wanted, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(image.affine, expected.affine)


def test_second_layout_leaves_the_first_alone(archive):
    before = {p: p.stat().st_mtime_ns for p in archive.rglob('*')}
    assert install_packaged_template(archive) == archive
    assert {p: p.stat().st_mtime_ns for p in archive.rglob('*')} == before


def test_layout_that_another_job_is_writing_is_not_seen(archive, tmp_path, monkeypatch):
    found = []

    def write(folder):
        """Lay out the template; meanwhile another job has finished and looks for it."""
        there = tmp_path / folder.name
        there.mkdir()
        for path in (archive / folder.name).iterdir():
            (folder / path.name).symlink_to(path)
            (there / path.name).symlink_to(path)
        found.append(find_template(tmp_path, resolution=2))

    monkeypatch.setattr(template, '_write_layout', write)
    install_packaged_template(tmp_path)
    assert {found[0].t1w.parent, found[0].gm.parent} == {tmp_path / f'tpl-{DEFAULT_SPACE}'}
    assert [path.name for path in tmp_path.iterdir()] == [f'tpl-{DEFAULT_SPACE}']


def test_missing_and_empty_files_are_told(archive, tmp_path):
    with pytest.raises(MissingInputError, match='not complete in') as refusal:
        find_template(tmp_path)
    assert refusal.match('desc brain, suffix T1w; desc brain, suffix mask; label GM')
    assert refusal.match('bids_brainage.preprocessing.template')
    assert list(tmp_path.iterdir()) == []  # TemplateFlow's client would lay out a skeleton
    folder = tmp_path / f'tpl-{DEFAULT_SPACE}'
    folder.mkdir()
    for path in (archive / folder.name).iterdir():
        (folder / path.name).symlink_to(path)
    gm = folder / f'tpl-{DEFAULT_SPACE}_res-2_label-GM_probseg.nii.gz'
    gm.unlink()
    gm.touch()  # as a data set that was not fetched
    with pytest.raises(MissingInputError, match='missing or empty are label GM, suffix probseg'):
        find_template(tmp_path, resolution=2)


def test_command_keeps_a_complete_archive(archive):
    assert main([str(archive)]) == 0
