"""Results reach the output dataset with their bytes, names and metadata."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from bids_brainage.errors import UnusableImageError, WorkflowError
from bids_brainage.interfaces.derivatives import DerivativesDataSink

SPACE = 'MNI152NLin2009aSym'
AFFINE = np.array([[-1.1, 0.1, 0, 9.7], [0.1, 1.3, 0.2, -8], [0, -0.2, 0.9, 3], [0, 0, 0, 1]])


def _image(folder: Path, dtype: str = 'float32', name: str = 'result.nii.gz') -> Path:
    data = np.random.default_rng(0).normal(size=(6, 5, 4)) * 3
    image = nb.Nifti1Image(np.abs(data).astype(dtype), AFFINE)
    path = folder / name
    image.to_filename(path)
    return path


def _sink(tmp_path: Path, in_file: Path, source: str | None = None, **inputs: object):
    sink = DerivativesDataSink(base_directory=str(tmp_path / 'out'), **inputs)
    sink.inputs.in_file = str(in_file)
    sink.inputs.source_file = source or '/data/sub-01/ses-1/anat/sub-01_ses-1_acq-x_T1w.nii.gz'
    return sink


def test_float_image_keeps_every_bit(tmp_path):
    in_file = _image(tmp_path)
    sink = _sink(
        tmp_path, in_file, space=SPACE, res='1', desc='preproc', SkullStripped=True, Z='later'
    )
    outputs = sink.run().outputs
    path = Path(outputs.out_file)
    assert path.relative_to(tmp_path / 'out').as_posix() == (
        f'sub-01/ses-1/anat/sub-01_ses-1_acq-x_space-{SPACE}_res-1_desc-preproc_T1w.nii.gz'
    )
    before, after = nb.load(in_file), nb.load(path)
    assert after.get_data_dtype() == np.float32
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    assert np.array_equal(before.affine, after.affine)
    assert (int(after.header['qform_code']), int(after.header['sform_code'])) == (4, 4)
    side = json.loads(Path(outputs.out_meta).read_text())
    assert side['SkullStripped'] is True
    assert 'mm' in side['Resolution']
    assert list(side) == sorted(side)


def test_scaled_integers_keep_bytes_and_scaling(tmp_path):
    image = nb.Nifti1Image(np.arange(24, dtype='int16').reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.25, 3)
    in_file = tmp_path / 'scaled.nii'
    image.to_filename(in_file)
    out = _sink(tmp_path, in_file, space='T1w', desc='preproc').run().outputs.out_file
    assert np.array_equal(nb.load(in_file).get_fdata(), nb.load(out).get_fdata())
    assert nb.load(out).get_data_dtype() == np.int16


def test_second_run_touches_nothing_and_other_job_writes_same_bytes(tmp_path):
    first = tmp_path / 'a'
    second = tmp_path / 'b'
    contents = []
    for root in (first, second):
        root.mkdir()
        in_file = _image(root, name='one.nii.gz')
        if root is second:  # the same image compressed by another tool, with a time stamp
            in_file.write_bytes(gzip.compress(gzip.decompress(in_file.read_bytes()), mtime=7))
        out = Path(_sink(root, in_file, desc='preproc', A=1).run().outputs.out_file)
        side = out.with_name(out.name.replace('.nii.gz', '.json'))
        contents.append((out.read_bytes(), side.read_bytes()))
        stamps = (out.stat().st_mtime_ns, side.stat().st_mtime_ns, out.stat().st_ino)
        _sink(root, in_file, desc='preproc', A=1).run()
        assert stamps == (out.stat().st_mtime_ns, side.stat().st_mtime_ns, out.stat().st_ino)
    assert contents[0] == contents[1]
    assert contents[0][0][4:8] == bytes(4)  # no time stamp in the gzip header


def test_changed_or_damaged_file_is_replaced(tmp_path):
    in_file = _image(tmp_path)
    out = Path(_sink(tmp_path, in_file, desc='preproc').run().outputs.out_file)
    whole = out.read_bytes()
    out.write_bytes(whole[:100])
    _sink(tmp_path, in_file, desc='preproc').run()
    assert out.read_bytes() == whole
    assert list(out.parent.glob('.*')) == []


@pytest.mark.parametrize(('suffix', 'dtype'), [('mask', 'uint8'), ('dseg', 'int16')])
def test_masks_and_labels_become_integers(tmp_path, suffix, dtype):
    in_file = _image(tmp_path, 'float64')
    inputs = {'desc': 'brain'} if suffix == 'mask' else {}
    out = _sink(tmp_path, in_file, suffix=suffix, **inputs).run().outputs.out_file
    assert nb.load(out).get_data_dtype() == np.dtype(dtype)
    expected = np.rint(nb.load(in_file).get_fdata()).astype(dtype)
    assert np.array_equal(np.asanyarray(nb.load(out).dataobj), expected)


def test_entity_order_of_saliency_and_long_names(tmp_path):
    out = _sink(
        tmp_path,
        _image(tmp_path, name='map.nii'),
        space=SPACE,
        resolution='2',
        model='sfcndemo',
        desc='gradcam',
        suffix='saliency',
    ).run()
    assert Path(out.outputs.out_file).name == (
        f'sub-01_ses-1_acq-x_space-{SPACE}_res-2_model-sfcndemo_desc-gradcam_saliency.nii.gz'
    )


def test_transform_figure_and_several_sources(tmp_path):
    transform = tmp_path / 'x.h5'
    transform.write_bytes(b'\x89HDF')
    out = _sink(tmp_path, transform, **{'from': 'T1w', 'to': SPACE, 'suffix': 'xfm'}).run()
    assert Path(out.outputs.out_file).read_bytes() == b'\x89HDF'
    figure = tmp_path / 'x.svg'
    figure.write_text('<svg/>')
    out = _sink(tmp_path, figure, datatype='figures', desc='mask', Description='no side').run()
    assert Path(out.outputs.out_file).relative_to(tmp_path / 'out').as_posix() == (
        'sub-01/figures/sub-01_ses-1_acq-x_desc-mask_T1w.svg'
    )
    assert not Path(out.outputs.out_file).with_suffix('.json').exists()
    sink = _sink(tmp_path, _image(tmp_path), desc='preproc')
    sink.inputs.source_file = [
        f'/d/sub-01/ses-{n}/anat/sub-01_ses-{n}_acq-x_T1w.nii.gz' for n in '12'
    ]
    sink.inputs.dismiss_entities = ['acquisition']
    assert Path(sink.run().outputs.out_file).name == 'sub-01_desc-preproc_T1w.nii.gz'


def test_refusals(tmp_path):
    with pytest.raises(WorkflowError, match='an entity is missing'):
        _sink(tmp_path, _image(tmp_path), suffix='saliency', desc='gradcam').run()
    broken = tmp_path / 'broken.nii.gz'
    broken.write_bytes(b'nothing')
    with pytest.raises(UnusableImageError, match=r'broken\.nii\.gz'):
        _sink(tmp_path, broken, desc='preproc').run()
    voxels = np.random.default_rng(0).normal(size=(20, 20, 20))
    nb.Nifti1Image(voxels, np.eye(4)).to_filename(broken)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-20])
    with pytest.raises(UnusableImageError, match='cut short'):
        _sink(tmp_path, broken, desc='preproc').run()
