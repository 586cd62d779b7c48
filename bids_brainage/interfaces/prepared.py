"""Nipype interfaces that take what another program made of a T1w image."""

from __future__ import annotations

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

from bids_brainage.interfaces.anatomical import (
    _BiasOutputSpec,
    _BrainOutputSpec,
    _read_json,
    _save_mask,
    _write_json,
)
from bids_brainage.preprocessing.image import (
    load_canonical,
    load_image,
    load_mask,
    save_image,
)


class _TakeBrainInputSpec(BaseInterfaceInputSpec):
    facts = File(exists=True, mandatory=True, desc='of the image, JSON')
    given = File(exists=True, mandatory=True, desc='brain mask that another program found')
    program = traits.Str(mandatory=True, desc='name of the program')


class TakeBrain(SimpleInterface):
    """Take the brain mask that another program found, on the grid of the image."""

    input_spec = _TakeBrainInputSpec
    output_spec = _BrainOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        mask, affine = load_mask(Path(self.inputs.given))
        source = _read_json(self.inputs.facts)['source']
        self._results |= _save_mask(
            Path(runtime.cwd), mask, affine, self.inputs.program, source, prepared_elsewhere=1.0
        )
        return runtime


class _TakeImageInputSpec(BaseInterfaceInputSpec):
    given = File(exists=True, mandatory=True, desc='image that another program corrected')


class TakeImage(SimpleInterface):
    """Take the image whose bias field another program has removed, in RAS+ order."""

    input_spec = _TakeImageInputSpec
    output_spec = _BiasOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        data, affine, _ = load_canonical(Path(self.inputs.given))
        self._results['t1w'] = save_image(data, affine, Path(runtime.cwd) / 't1w_clean.nii')
        return runtime


class _TakeGreyMatterInputSpec(BaseInterfaceInputSpec):
    given = File(exists=True, mandatory=True, desc='modulated map of CAT12 (mwp1)')
    report = File(exists=True, desc='its report of the image, XML')
    template = File(exists=True, mandatory=True, desc='template on the wanted grid')
    measures = File(exists=True, mandatory=True, desc='of the brain mask, JSON')


class _TakeGreyMatterOutputSpec(TraitedSpec):
    gm_modulated = File(exists=True, desc='the map on the grid of the template')
    measures = File(exists=True, desc='with the quality of the image and the size of the voxels')


class TakeGreyMatter(SimpleInterface):
    """Take the modulated grey matter that CAT12 made, on the grid of the template.

    Both spaces are MNI; nothing is registered.
    """

    input_spec = _TakeGreyMatterInputSpec
    output_spec = _TakeGreyMatterOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from bids_brainage.dataset.cat12 import quality_percent
        from bids_brainage.errors import UnusableImageError
        from bids_brainage.inputs.grey_matter import MEASURE
        from bids_brainage.preprocessing.resample import onto_grid

        given = Path(self.inputs.given)
        data, affine, facts = load_canonical(given)
        template, grid = load_image(self.inputs.template)
        taken = onto_grid(data, affine, template.shape, grid)
        inside = float(taken.sum() * abs(np.linalg.det(grid[:3, :3])) / 1000)
        low, high = GREY_MATTER_ML
        if not low <= inside <= high:
            raise UnusableImageError(
                f'{given}: holds {inside:.0f} ml of grey matter within the template, expected '
                f'{low:.0f} to {high:.0f} ml. It is not a modulated map (mwp1) in MNI space; '
                'write it with CAT12 again.'
            )
        found = {MEASURE: 1.0, 'cat12_voxel_mm': round(float(max(facts.voxel_size_mm)), 3)}
        if isdefined(self.inputs.report):
            percent = quality_percent(Path(self.inputs.report))
            found |= {} if percent is None else {'cat12_quality_percent': percent}
        folder = Path(runtime.cwd)
        self._results['gm_modulated'] = save_image(taken, grid, folder / 'gm_modulated.nii')
        measures = {**_read_json(self.inputs.measures), **found}
        self._results['measures'] = _write_json(folder / 'measures.json', measures)
        return runtime


GREY_MATTER_ML = (200.0, 1500.0)
"""What modulated grey matter can sum up to, from small children to large heads."""
