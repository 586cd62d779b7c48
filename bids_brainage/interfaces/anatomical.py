"""Nipype interfaces of the anatomical workflow: one per step, around pure functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_brainage.preprocessing.image import load_image, save_image


def _write_json(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content, indent=1, sort_keys=True), 'utf-8')
    return str(path)


def _read_json(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text('utf-8'))
    return content


MASK = 'mask.nii.gz'
"""Brain mask in the folder of the node that finds it."""


class _CheckInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='T1w image as in the dataset')
    memo = traits.Str(mandatory=True, nohash=True, desc='hashes of input files between runs')
    others = traits.List(File(exists=True), desc='further files that the scan consists of')


class _CheckOutputSpec(TraitedSpec):
    t1w = File(exists=True, desc='RAS+ float32 image')
    facts = File(exists=True, desc='what the header and the intensities say, JSON')


class CheckT1w(SimpleInterface):
    """Read a T1w image into RAS+ float32, or refuse it with a reason."""

    input_spec = _CheckInputSpec
    output_spec = _CheckOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.outputs.provenance import remembered_sha256
        from bids_brainage.preprocessing.image import load_canonical

        path = Path(self.inputs.t1w)
        data, affine, facts = load_canonical(path)
        folder = Path(runtime.cwd)
        files = [path, *map(Path, self.inputs.others or ())]
        hashes = {file.name: remembered_sha256(file, self.inputs.memo) for file in files}
        content = {**facts.as_dict(), 'sha256': hashes if len(files) > 1 else hashes[path.name]}
        content |= {'source': str(path), 'mp2rage': path.name.split('.')[0].endswith('_UNIT1')}
        self._results['facts'] = _write_json(folder / 'facts.json', content)
        self._results['t1w'] = save_image(data, affine, folder / 't1w.nii')
        return runtime


class _BrainInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='RAS+ float32 image')
    facts = File(exists=True, mandatory=True)
    threads = traits.Int(1, usedefault=True, nohash=True)
    device = traits.Str('cpu', usedefault=True, nohash=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='scheduling hint')


class _BrainOutputSpec(TraitedSpec):
    mask = File(exists=True, desc='brain mask on the grid of the image')
    measures = File(exists=True, desc='volume and cut area of the mask, JSON')


class ExtractBrain(SimpleInterface):
    """Find the brain, or keep what is there in an image that is already skull-stripped."""

    input_spec = _BrainInputSpec
    output_spec = _BrainOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.models.devices import careful_with_gpus, choose_device
        from bids_brainage.preprocessing import brainmask

        data, affine = load_image(self.inputs.t1w)
        facts = _read_json(self.inputs.facts)
        with careful_with_gpus('the brain mask'):
            mask, method = brainmask.find_brain(
                data, affine, skull_stripped=facts['skull_stripped'],
                threads=self.inputs.threads, device=choose_device(self.inputs.device),
            )  # fmt: skip
        self._results |= _save_mask(Path(runtime.cwd), mask, affine, method, facts['source'])
        return runtime


def _save_mask(
    folder: Path, mask: Any, affine: Any, method: str, source: str, **more: float
) -> dict[str, str]:
    """Write a brain mask with its measures, or refuse one that cannot be a brain."""
    from bids_brainage.errors import ProcessingError
    from bids_brainage.preprocessing import brainmask

    # a wrong one is shown in the report
    saved = save_image(mask, affine, folder / MASK, 'uint8')
    volume = brainmask.volume_ml(mask, affine)
    low, high = brainmask.PLAUSIBLE_ML
    if not low <= volume <= high:
        raise ProcessingError(
            f'{source}: the brain mask ({method}) holds {volume:.0f} ml, expected '
            f'{low:.0f} to {high:.0f} ml. The image may not be a T1w scan of a whole brain, '
            'or its voxel size or orientation is wrong: open it in a viewer.'
        )
    measures = {
        'mask_ml': volume,
        'border_cm2': brainmask.touches_border(mask, affine),
        'mask_method': method,
        **more,
    }
    return {'mask': saved, 'measures': _write_json(folder / 'mask.json', measures)}


class _BiasInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)


class _BiasOutputSpec(TraitedSpec):
    t1w = File(exists=True, desc='bias-corrected image')


class CorrectBias(SimpleInterface):
    """Divide by the N4 bias field estimated inside the brain."""

    input_spec = _BiasInputSpec
    output_spec = _BiasOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.bias import correct_bias

        data, affine = load_image(self.inputs.t1w)
        mask, _ = load_image(self.inputs.mask)
        corrected, _ = correct_bias(data, affine, mask > 0)
        self._results['t1w'] = save_image(corrected, affine, Path(runtime.cwd) / 't1w_n4.nii')
        return runtime


class _RegisterInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='bias-corrected image')
    mask = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True, desc='skull-stripped template, 2 mm')
    template_mask = File(exists=True, mandatory=True)
    sloppy = traits.Bool(False, usedefault=True)
    threads = traits.Int(1, usedefault=True, nohash=True)


class _RegisterOutputSpec(TraitedSpec):
    transform = File(exists=True, desc='SpatialTransform, template → native (.npz)')
    scores = File(exists=True, desc='how well it fits, JSON')


class RegisterToTemplate(SimpleInterface):
    """Affine and deformable registration with greedy in double precision, scored."""

    input_spec = _RegisterInputSpec
    output_spec = _RegisterOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from dataclasses import asdict

        from bids_brainage.preprocessing.normalise import load_brain
        from bids_brainage.preprocessing.registration import register, score
        from bids_brainage.preprocessing.transforms import save_transform

        data, affine = load_image(self.inputs.t1w)
        mask = load_image(self.inputs.mask)[0] > 0
        fixed, fixed_affine = load_image(self.inputs.template)
        fixed_mask = load_image(self.inputs.template_mask)[0] > 0
        transform, tries = register(
            fixed, fixed_mask, fixed_affine, data, mask, affine,
            threads=self.inputs.threads, sloppy=self.inputs.sloppy,
        )  # fmt: skip
        _, corner, (brain, part) = load_brain(self.inputs.mask, self.inputs.t1w)
        result = score(transform, fixed, fixed_mask, part, brain, corner)
        folder = Path(runtime.cwd)
        save_transform(folder / 'transform.npz', transform)
        self._results['transform'] = str(folder / 'transform.npz')
        self._results['scores'] = _write_json(folder / 'scores.json', {**asdict(result), **tries})
        return runtime


class _SegmentInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='bias-corrected image')
    mask = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True)


class _SegmentOutputSpec(TraitedSpec):
    gm = File(exists=True, desc='grey-matter probability, native')
    tissues = File(exists=True, desc='tissue labels, native: 1 GM, 2 WM, 3 CSF')
    structures = File(exists=True, desc='structure labels, native')
    volumes = File(exists=True, desc='structure volumes and class intensities, JSON')
    structure_facts = traits.Dict(desc='side file of the structure map')


class SegmentBrain(SimpleInterface):
    """Tissue and structure posteriors with the warped atlas as prior."""

    input_spec = _SegmentInputSpec
    output_spec = _SegmentOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.preprocessing.atlas import load_atlas
        from bids_brainage.preprocessing.normalise import load_brain
        from bids_brainage.preprocessing.segmentation import segment
        from bids_brainage.preprocessing.transforms import load_transform, voxel_points

        whole, affine = load_image(self.inputs.mask)
        box, corner, (mask, data) = load_brain(self.inputs.mask, self.inputs.t1w)
        transform = load_transform(Path(self.inputs.transform))
        atlas = load_atlas()
        points = transform.to_template(voxel_points(mask, corner))
        found = segment(data[mask], atlas.sample(points), atlas.structures)
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
        tissue = np.stack([found.tissue(name) for name in ('GM', 'WM', 'CSF')])
        folder = Path(runtime.cwd)

        def put(values: Any, name: str, kind: str) -> str:
            image = np.zeros(whole.shape, kind)
            image[box][mask] = values
            return save_image(image, affine, folder / f'{name}.nii', kind)

        self._results['gm'] = put(tissue[0], 'gm', 'float32')
        self._results['tissues'] = put(tissue.argmax(axis=0) + 1, 'tissues', 'uint8')
        self._results['structures'] = put(found.labels(), 'structures', 'uint8')
        volumes = found.volumes_ml(voxel_ml)
        self._results['structure_facts'] = {
            'VolumesML': volumes,
            'LabelMap': {str(s.index): s.name for s in atlas.structures},
        }
        self._results['volumes'] = _write_json(
            folder / 'volumes.json',
            {
                'volumes_ml': volumes,
                'intensities': found.means,
                'contrast': found.means['wm'] / found.means['gm'],
            },
        )
        return runtime


class _WarpInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    tissues = File(exists=True, mandatory=True)
    structures = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True, desc='template on the wanted grid')


class _WarpOutputSpec(TraitedSpec):
    t1w = File(exists=True)
    mask = File(exists=True)
    tissues = File(exists=True)
    structures = File(exists=True)
    gm = File(exists=True)
    gm_modulated = File(exists=True)
    t1w_affine = File(exists=True, desc='brain aligned with the template, not deformed')
    mask_affine = File(exists=True, desc='its brain mask')
    transform_affine = File(exists=True, desc='SpatialTransform of the alignment (.npz)')
    to_template = File(exists=True, desc='ITK composite, pulls T1w onto the template')
    to_native = File(exists=True, desc='ITK composite, the other way')


class WarpToTemplate(SimpleInterface):
    """Resample everything onto the template, each map in one interpolation.

    The image is also brought there by the affine step alone, which keeps the proportions of
    the person's own brain.
    """

    input_spec = _WarpInputSpec
    output_spec = _WarpOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np
        from scipy import ndimage

        from bids_brainage.preprocessing import normalise, transforms
        from bids_brainage.preprocessing.itk_files import save_itk

        folder = Path(runtime.cwd)
        transform = transforms.load_transform(Path(self.inputs.transform))
        template, grid = load_image(self.inputs.template)
        box, corner = normalise.brain_box(template > 0, grid)
        shape = template[box].shape
        where = normalise.template_coordinates(transform, shape, corner)
        aligned = transforms.grid_points(shape, transform.affine @ corner)
        names = ('mask', 't1w', 'gm', 'tissues', 'structures')
        _, affine, parts = normalise.load_brain(*(getattr(self.inputs, n) for n in names))
        mask, image, grey, tissues, structures = parts
        whole = mask.astype(np.float32)
        covered = normalise.pull(whole, affine, where, shape)
        brain, some = covered > 0.5, covered > 0
        brain_affine = normalise.pull(whole, affine, aligned, shape) > 0.5

        def warp(data: Any, inside: Any, order: int = 1, where: Any = where) -> Any:
            return normalise.pull_inside(data, affine, where, inside, order=order)

        width = normalise.MODULATION_SMOOTHING_MM / np.linalg.norm(affine[:3, :3], axis=0)
        smooth = ndimage.gaussian_filter(grey, width)
        gm = warp(smooth, ndimage.maximum_filter(some, normalise.SMEARED))
        modulated = normalise.modulate(gm, transform.jacobian(), transform.grid, corner)
        for name, data, kind in (
            ('t1w', warp(image, brain), 'float32'),
            ('t1w_affine', warp(image, brain_affine, where=aligned), 'float32'),
            ('mask_affine', brain_affine, 'uint8'),
            ('mask', brain, 'uint8'),
            ('tissues', warp(tissues, some, 0), 'uint8'),
            ('structures', warp(structures, some, 0), 'uint8'),
            ('gm', gm, 'float32'),
            ('gm_modulated', modulated, 'float32'),
        ):
            full = np.zeros(template.shape, kind)
            full[box] = data
            self._results[name] = save_image(full, grid, folder / f'{name}.nii', kind)
        transforms.save_transform(folder / 'transform_affine.npz', transform.linear())
        self._results['transform_affine'] = str(folder / 'transform_affine.npz')
        forward, backward = folder / 'to_template.h5', folder / 'to_native.h5'
        save_itk(
            forward, transform.affine, transform.displacement, transform.grid, affine_first=False
        )
        save_itk(
            backward,
            np.linalg.inv(transform.affine),
            transform.inverse_displacement,
            transform.grid,
            affine_first=True,
        )
        self._results['to_template'] = str(forward)
        self._results['to_native'] = str(backward)
        return runtime


class _QualityInputSpec(BaseInterfaceInputSpec):
    facts = File(exists=True, mandatory=True)
    mask_measures = File(exists=True, mandatory=True)
    scores = File(exists=True, desc='of the registration; unset if there was none')
    volumes = File(exists=True, desc='of the structures; unset if there are none')
    thickness = traits.Bool(True, usedefault=True, desc='thick slices are worth a word')
    sloppy = traits.Bool(False, usedefault=True)


class _QualityOutputSpec(TraitedSpec):
    quality = File(exists=True, desc='measures and flags, JSON')


class AssessQuality(SimpleInterface):
    """Compare what was measured on the way with the thresholds of the flags.

    Without registration the checks are those of the image and its mask.
    """

    input_spec = _QualityInputSpec
    output_spec = _QualityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.preprocessing.quality import header_measures

        facts = _read_json(self.inputs.facts)
        measures = {key: facts[key] for key in ('n_nonfinite', 'raised_by')}
        measures |= header_measures(facts)
        measures |= _read_json(self.inputs.mask_measures)
        if self.inputs.thickness:
            measures['slice_thickness_mm'] = max(facts['voxel_size_mm'])
        if isdefined(self.inputs.scores) and isdefined(self.inputs.volumes):
            measures |= {
                **_read_json(self.inputs.scores),
                'contrast': _read_json(self.inputs.volumes)['contrast'],
            }
        self._results['quality'] = _write_quality(runtime.cwd, measures, self.inputs.sloppy)
        return runtime


def _write_quality(folder: str, measures: dict[str, Any], sloppy: bool) -> str:
    """Write measures with the flags that they raise."""
    from bids_brainage.preprocessing.quality import image_flags

    flags = image_flags(measures) + (['sloppy'] if sloppy else [])
    return _write_json(Path(folder, 'quality.json'), {'flags': flags, 'measures': measures})
