"""Nipype interfaces from a BOLD series in template space to connectivity, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    OutputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bids_brainage.interfaces.anatomical import _read_json, _write_json
from bids_brainage.preprocessing.image import load_image


class _ConnectivityInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True, desc='series in template space, not compressed')
    mask = File(exists=True, mandatory=True, desc='voxels with BOLD signal')
    confounds = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True, desc='repetition time and what it came from')
    scores = File(exists=True, desc='scores of the coregistration')
    atlas = traits.Str(mandatory=True, desc='as understood by resolve_atlas')
    atlas_table = File(exists=True)
    space = traits.Str(mandatory=True)
    motion = traits.Enum(24, 6, usedefault=True)
    tissue = traits.Bool(True, usedefault=True)
    temporal = traits.Enum('bandpass', 'cosine', usedefault=True)
    fd_threshold = traits.Float(0.5, usedefault=True)


class _ConnectivityOutputSpec(TraitedSpec):
    timeseries = File(exists=True, desc='cleaned regional signals, one row a kept volume')
    correlation = File(exists=True, desc='Pearson r')
    fisher_z = File(exists=True, desc='inverse hyperbolic tangent of r')
    quality = File(exists=True, desc='measures and flags, JSON')
    meta = traits.Dict(desc='for the side files')


class MeasureConnectivity(SimpleInterface):
    """Clean regional time series and correlate them."""

    input_spec = _ConnectivityInputSpec
    output_spec = _ConnectivityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nib

        from bids_brainage.preprocessing.bold import confounds, connectome, quality

        atlas = _resolve(self.inputs)
        facts = _read_json(self.inputs.facts)
        asked = confounds.Denoising(
            self.inputs.motion,
            self.inputs.tissue,
            self.inputs.temporal,
            self.inputs.fd_threshold,
        )
        path = Path(self.inputs.confounds)
        table = confounds.read_confounds(path)
        model = confounds.select_confounds(table, facts['tr'], asked, source=str(path))
        found = connectome.compute_connectome(
            nib.load(self.inputs.bold), nib.load(self.inputs.mask), atlas, model, facts['tr']
        )
        scores = _read_json(self.inputs.scores) if isdefined(self.inputs.scores) else None
        measures = quality.bold_quality(
            table,
            model,
            found.coverage,
            tr=facts['tr'],
            tr_mismatch=facts['tr_mismatch'],
            asked=asked.text(),
            scores=scores,
        )
        flags = quality.bold_flags(measures)
        folder, names = Path(runtime.cwd), atlas.names()
        self._results['timeseries'] = _write_table(
            folder / 'timeseries.tsv', names, found.series, None
        )
        for field in ('correlation', 'fisher_z'):
            self._results[field] = _write_table(
                folder / f'{field}.tsv', names, getattr(found, field), names
            )
        self._results['quality'] = _write_json(
            folder / 'quality.json', {'flags': flags, 'measures': measures}
        )
        self._results['meta'] = {
            'Atlas': atlas.title,
            'AtlasReference': atlas.reference,
            'RepetitionTime': facts['tr'],
            'Confounds': list(model.columns),
            'ConfoundModel': measures['confound_model'],
            'VolumesKept': [int(i) for i in model.keep.nonzero()[0]],
            'DegreesOfFreedom': model.freedom,
            'RegionCoverage': dict(zip(names, map(float, found.coverage), strict=True)),
            'Quality': measures,
            'QualityFlags': flags,
        }
        return runtime


class _SaveAtlasInputSpec(BaseInterfaceInputSpec):
    atlas = traits.Str(mandatory=True)
    atlas_table = File(exists=True)
    space = traits.Str(mandatory=True)
    base_directory = traits.Str(mandatory=True)


class _SaveAtlasOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='region table')


class SaveAtlas(SimpleInterface):
    """Write the region table and the description of an atlas at the root of the outputs."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _SaveAtlasInputSpec
    output_spec = _SaveAtlasOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.names import atlas_path
        from bids_brainage.outputs.files import write_json, write_tsv
        from bids_brainage.preprocessing.bold.dictionary import REGION_COLUMNS

        atlas = _resolve(self.inputs)
        root = Path(self.inputs.base_directory)
        table = root / atlas_path(atlas.label)
        write_tsv(table, [region.row() for region in atlas.regions])
        write_json(table.with_suffix('.json'), REGION_COLUMNS)
        write_json(root / atlas_path(atlas.label, description=True), atlas.description())
        self._results['out_file'] = str(table)
        return runtime


class _DrawInputSpec(BaseInterfaceInputSpec):
    bold = File(exists=True, mandatory=True)
    mask = File(exists=True, mandatory=True)
    confounds = File(exists=True, mandatory=True)
    facts = File(exists=True, mandatory=True)
    correlation = File(exists=True, mandatory=True)
    atlas = traits.Str(mandatory=True)
    atlas_table = File(exists=True)
    space = traits.Str(mandatory=True)
    fd_threshold = traits.Float(0.5, usedefault=True)
    t1w = File(exists=True, desc='native, with t1w_mask and aligned for the alignment picture')
    t1w_mask = File(exists=True)
    aligned = File(exists=True)
    source_file = traits.Str(mandatory=True)
    base_directory = traits.Str(mandatory=True)


class _DrawOutputSpec(TraitedSpec):
    figures = OutputMultiObject(File(exists=True), desc='SVG files')


class DrawBold(SimpleInterface):
    """Draw carpet, connectivity and, when the series was aligned here, the alignment."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _DrawInputSpec
    output_spec = _DrawOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.pictures import bold as figures_bold
        from bids_brainage.preprocessing.bold.connectome import read_matrix

        atlas = _resolve(self.inputs)
        out = {what: self._path(what) for what in ('carpet', 'connectivity')}
        self._draw_carpet(out['carpet'])
        figures_bold.plot_connectivity(
            read_matrix(Path(self.inputs.correlation)),
            atlas.networks(),
            out['connectivity'],
            title=f'Connectivity: {atlas.title}',
        )
        if isdefined(self.inputs.aligned):
            out['coregistration'] = self._path('coregistration')
            figures_bold.plot_coregistration(
                Path(self.inputs.t1w),
                Path(self.inputs.t1w_mask),
                Path(self.inputs.aligned),
                out['coregistration'],
            )
        self._results['figures'] = [str(path) for path in out.values()]
        return runtime

    def _path(self, what: str) -> Path:
        from bids_brainage.names import derivative_path, parse_name

        named = {**parse_name(self.inputs.source_file), 'desc': what, 'extension': '.svg'}
        return Path(self.inputs.base_directory) / derivative_path(named, 'figures')

    def _draw_carpet(self, out: Path) -> None:
        import nibabel as nib

        from bids_brainage.pictures.bold import plot_carpet
        from bids_brainage.preprocessing.atlas import load_atlas
        from bids_brainage.preprocessing.bold.carpet import make_carpet, voxel_groups
        from bids_brainage.preprocessing.bold.confounds import kept_volumes, read_confounds
        from bids_brainage.preprocessing.bold.resample import read_series
        from bids_brainage.preprocessing.transforms import voxel_points

        mask, grid = load_image(self.inputs.mask)
        values = read_series(nib.load(self.inputs.bold), mask > 0)
        carpet = make_carpet(values, voxel_groups(load_atlas(), voxel_points(mask > 0, grid)))
        table = read_confounds(Path(self.inputs.confounds))
        plot_carpet(
            carpet.values,
            carpet.groups,
            table.get('framewise_displacement'),
            table.get('std_dvars'),
            kept_volumes(table, self.inputs.fd_threshold),
            _read_json(self.inputs.facts)['tr'],
            out,
            fd_threshold=self.inputs.fd_threshold,
        )


def _resolve(inputs: Any) -> Any:
    from bids_brainage.preprocessing.bold.atlases import resolve_atlas

    table = Path(inputs.atlas_table) if isdefined(inputs.atlas_table) else None
    return resolve_atlas(inputs.atlas, table=table, space=inputs.space)


def _write_table(path: Path, columns: list[str], values: Any, names: list[str] | None) -> str:
    """Write a matrix with a header; ``names`` become a first column ``name``."""
    from bids_brainage.outputs.files import write_tsv

    rows = [dict(zip(columns, row, strict=True)) for row in values]
    if names is not None:
        rows = [{'name': name, **row} for name, row in zip(names, rows, strict=True)]
    write_tsv(path, rows, (['name'] if names is not None else []) + columns)
    return str(path)
