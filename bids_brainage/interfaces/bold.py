"""Nipype interfaces of the BOLD workflow: one per step, around pure functions."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from bids_brainage.interfaces.anatomical import _write_json
from bids_brainage.preprocessing.image import load_image, save_image


class _MotionInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc='series as in the dataset')
    metadata = traits.Dict(mandatory=True, desc='its BIDS metadata')


class _MotionOutputSpec(TraitedSpec):
    reference = File(exists=True, desc='mean of quiet volumes, RAS+')
    mask = File(exists=True, desc='where the reference shows a head')
    motion = File(exists=True, desc='parameters (T, 6), centre, n_non_steady (.npz)')
    facts = File(exists=True, desc='what header and metadata say, JSON')


class EstimateMotion(SimpleInterface):
    """Check a series, make its reference, and find the rigid motion of every volume."""

    input_spec = _MotionInputSpec
    output_spec = _MotionOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.preprocessing.bold import motion
        from bids_brainage.preprocessing.bold.series import count_non_steady, load_bold

        series = load_bold(Path(self.inputs.bold), self.inputs.metadata)
        early = count_non_steady(series.data)
        reference = motion.reference_volume(series.data, skip=early)
        mask = motion.head_mask(reference, series.affine)
        found = motion.estimate_motion(series.data, series.affine, reference, mask)
        folder = Path(runtime.cwd)
        np.savez(
            folder / 'motion.npz',
            parameters=found.parameters,
            centre=found.centre,
            n_non_steady=early,
        )
        self._results['motion'] = str(folder / 'motion.npz')
        self._results['reference'] = save_image(
            reference, series.affine, folder / 'reference.nii.gz'
        )
        self._results['mask'] = save_image(mask, series.affine, folder / 'mask.nii.gz', 'uint8')
        self._results['facts'] = _write_json(folder / 'facts.json', {
            'tr': series.tr,
            'tr_mismatch': series.tr_mismatch,
            'header_tr': series.header_tr,
            'n_volumes': series.n_volumes,
            'n_non_steady': early,
            'n_nonfinite': series.n_nonfinite,
        })  # fmt: skip
        return runtime


class _CoregisterInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True, desc='native, bias-corrected')
    t1w_mask = File(exists=True, mandatory=True)


class _CoregisterOutputSpec(TraitedSpec):
    matrix = File(exists=True, desc='T1w → BOLD reference on RAS+ mm, 4 x 4 text')
    scores = File(exists=True, desc='how well it fits, JSON')
    aligned = File(exists=True, desc='reference on the grid of the T1w image')


class CoregisterBold(SimpleInterface):
    """Register the reference rigidly to the T1w image and score the result."""

    input_spec = _CoregisterInputSpec
    output_spec = _CoregisterOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.preprocessing.bold.coregister import coregister
        from bids_brainage.preprocessing.transforms import grid_points, sample_image

        reference, affine = load_image(self.inputs.reference)
        mask = load_image(self.inputs.mask)[0] > 0
        t1w, t1w_affine = load_image(self.inputs.t1w)
        t1w_mask = load_image(self.inputs.t1w_mask)[0] > 0
        found = coregister(reference, mask, affine, t1w, t1w_mask, t1w_affine)
        points = grid_points(t1w.shape, t1w_affine)
        where = points @ found.matrix[:3, :3].T + found.matrix[:3, 3]
        aligned = sample_image(reference, affine, where).reshape(t1w.shape)
        folder = Path(runtime.cwd)
        np.savetxt(folder / 'matrix.txt', found.matrix)
        self._results['matrix'] = str(folder / 'matrix.txt')
        self._results['scores'] = _write_json(folder / 'scores.json', found.scores())
        self._results['aligned'] = save_image(aligned, t1w_affine, folder / 'aligned.nii.gz')
        return runtime


class _ResampleInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc='series as in the dataset')
    metadata = traits.Dict(mandatory=True)
    motion = File(exists=True, mandatory=True)
    matrix = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True, desc='SpatialTransform, template → T1w')
    target_mask = File(exists=True, mandatory=True, desc='brain mask on the wanted grid')
    order = traits.Enum(3, 1, usedefault=True, desc='spline order')


class _ResampleOutputSpec(TraitedSpec):
    bold = File(exists=True, desc='series on the template grid, not compressed')
    mask = File(exists=True, desc='template voxels with BOLD signal')
    slice_timing = traits.Dict(desc='SliceTimingCorrected, and why not')


class ResampleBold(SimpleInterface):
    """Take every volume to the template grid in one interpolation."""

    input_spec = _ResampleInputSpec
    output_spec = _ResampleOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.preprocessing.bold import resample, slicetiming
        from bids_brainage.preprocessing.bold.motion import Motion
        from bids_brainage.preprocessing.bold.series import load_bold
        from bids_brainage.preprocessing.transforms import load_transform, voxel_points

        metadata = self.inputs.metadata
        series = load_bold(Path(self.inputs.bold), metadata)
        stored = np.load(self.inputs.motion)
        data = series.data
        times, reason = slicetiming.slice_times(metadata, data.shape[series.slice_axis], series.tr)
        if times is not None:
            data = slicetiming.correct_slice_timing(
                data,
                times,
                series.tr,
                axis=series.slice_axis,
                reversed_order=series.slices_reversed,
                skip=int(stored['n_non_steady']),
            )
        brain, grid = load_image(self.inputs.target_mask)
        brain = brain > 0
        points = resample.bold_points(
            load_transform(Path(self.inputs.transform)),
            np.loadtxt(self.inputs.matrix),
            voxel_points(brain, grid),
        )
        values, covered = resample.resample_series(
            data,
            series.affine,
            Motion(stored['parameters'], stored['centre']).matrices(),
            points,
            order=self.inputs.order,
        )
        folder = Path(runtime.cwd)
        signal = np.zeros(brain.shape, bool)
        signal[brain] = resample.signal_coverage(values, covered)
        resample.write_series(folder / 'bold.nii', values, brain, grid, series.tr)
        self._results['bold'] = str(folder / 'bold.nii')
        self._results['mask'] = save_image(signal, grid, folder / 'mask.nii.gz', 'uint8')
        done: dict[str, Any] = {'SliceTimingCorrected': times is not None}
        if reason:
            done['SliceTimingNotCorrected'] = reason
        self._results['slice_timing'] = done
        return runtime


class _ConfoundsInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc='series on the template grid')
    mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)


class _ConfoundsOutputSpec(TraitedSpec):
    confounds = File(exists=True, desc="confound table under fMRIPrep's names")
    dictionary = traits.Dict(desc='descriptions of its columns')


class BuildConfounds(SimpleInterface):
    """Compute motion, tissue and change signals of a series."""

    input_spec = _ConfoundsInputSpec
    output_spec = _ConfoundsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nib
        import numpy as np

        from bids_brainage.outputs.files import write_tsv
        from bids_brainage.preprocessing.atlas import load_atlas
        from bids_brainage.preprocessing.bold.carpet import deep_tissue
        from bids_brainage.preprocessing.bold.confounds import build_confounds
        from bids_brainage.preprocessing.bold.dictionary import describe_confounds
        from bids_brainage.preprocessing.bold.resample import read_series
        from bids_brainage.preprocessing.transforms import voxel_points

        mask, grid = load_image(self.inputs.mask)
        values = read_series(nib.load(self.inputs.bold), mask > 0)
        stored = np.load(self.inputs.motion)
        table = build_confounds(
            values,
            deep_tissue(load_atlas(), voxel_points(mask > 0, grid)),
            stored['parameters'],
            n_non_steady=int(stored['n_non_steady']),
        )
        path = Path(runtime.cwd) / 'confounds.tsv'
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        write_tsv(path, rows, list(table))
        self._results['confounds'] = str(path)
        self._results['dictionary'] = describe_confounds(table)
        return runtime


class _UnpackInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc='preprocessed series in template space')
    mask = File(exists=True, desc='brain mask on its grid')
    metadata = traits.Dict(desc='side files of the preprocessed and raw series')


class _UnpackOutputSpec(TraitedSpec):
    bold = File(exists=True, desc='series, not compressed')
    mask = File(exists=True, desc='voxels with BOLD signal')
    facts = File(exists=True, desc='as those of EstimateMotion, JSON')


class UnpackDerivative(SimpleInterface):
    """Make a preprocessed series ready for random access and find where it has signal."""

    input_spec = _UnpackInputSpec
    output_spec = _UnpackOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nib
        import numpy as np
        from nipype.interfaces.base import isdefined

        from bids_brainage.preprocessing.bold.series import series_facts, signal_mask

        metadata = self.inputs.metadata if isdefined(self.inputs.metadata) else {}
        source, folder = Path(self.inputs.bold), Path(runtime.cwd)
        facts = series_facts(source, metadata)
        path = source
        if source.suffix == '.gz':
            path = folder / 'bold.nii'
            with gzip.open(source, 'rb') as packed, path.open('wb') as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        image: Any = nib.load(path)
        mask = signal_mask(image)
        if isdefined(self.inputs.mask):
            brain = load_image(self.inputs.mask)[0] > 0
            mask = mask & brain if brain.shape == mask.shape else mask
        self._results['bold'] = str(path)
        self._results['mask'] = save_image(
            mask, np.asarray(image.affine), folder / 'mask.nii.gz', 'uint8'
        )
        self._results['facts'] = _write_json(folder / 'facts.json', facts)
        return runtime
