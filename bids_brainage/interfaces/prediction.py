"""Nipype interfaces that run a model on one scan and put its answer into the output dataset."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    CommandLine,
    CommandLineInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)


class _PredictInputSpec(CommandLineInputSpec):
    bundle = Directory(exists=True, mandatory=True, argstr='%s', position=0)
    out_dir = traits.Str('.', usedefault=True, argstr='%s', position=1)
    weights_sha256 = traits.Str(mandatory=True, desc='makes new weights a new result')
    calibration = traits.Dict(desc='of the interval; makes a new calibration a new result')
    curves = traits.Dict(desc='of people by age; makes new curves a new result')
    t1w = File(exists=True, argstr='--t1w %s')
    gm_modulated = File(exists=True, argstr='--gm-modulated %s')
    volumes = File(exists=True, argstr='--volumes %s')
    region_volumes = File(exists=True, argstr='--region-volumes %s')
    regions = File(exists=True, argstr='--regions %s')
    structures = File(exists=True, argstr='--structures %s')
    t1w_uncorrected = File(exists=True, argstr='--t1w-uncorrected %s')
    mask_native = File(exists=True, argstr='--mask-native %s')
    mask = File(exists=True, argstr='--mask %s')
    connectivity = File(exists=True, argstr='--connectivity %s')
    atlas = traits.Str(argstr='--atlas %s', desc='regions of the connectivity')
    atlas_table = File(exists=True, argstr='--atlas-table %s')
    synthetic_slices = traits.Bool(argstr='--synthetic-slices', desc='as thick-slice scans')
    reference_age = traits.Float(argstr='--reference-age %.17g', desc='years, to explain by')
    saliency = traits.List(traits.Str, argstr='--saliency %s', desc='methods; [] for none')
    seed = traits.Int(0, usedefault=True, argstr='--seed %d')
    device = traits.Str('auto', usedefault=True, argstr='--device %s', nohash=True)
    threads = traits.Int(1, usedefault=True, argstr='--threads %d', nohash=True)
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc='scheduling hint')


class _PredictOutputSpec(TraitedSpec):
    prediction = File(exists=True, desc='age, interval, explanation, JSON')


class PredictAge(CommandLine):
    """Run one bundle on one scan in a process of its own.

    A GPU context never lives in the process that schedules the nodes, and a model that
    exhausts the memory takes only its own node down.
    """

    _cmd = f'{shlex.quote(sys.executable)} -m bids_brainage.inference'
    input_spec = _PredictInputSpec
    output_spec = _PredictOutputSpec

    def _list_outputs(self) -> dict[str, Any]:
        return {'prediction': str(Path(self.inputs.out_dir, 'prediction.json').resolve())}


class _SaveInputSpec(BaseInterfaceInputSpec):
    prediction = File(exists=True, mandatory=True)
    bundle = Directory(exists=True, mandatory=True)
    quality = File(exists=True, desc='flags of the preprocessing, JSON')
    facts = File(exists=True, mandatory=True, desc='facts of the image, JSON')
    scan = traits.Dict(mandatory=True, desc='columns of the row that the dataset gives')
    sources = traits.List(traits.Str, desc='BIDS URIs of all that was read, if several')
    simulated = traits.Bool(False, usedefault=True, desc='nobody was scanned')
    source_file = traits.Str(mandatory=True, desc='path of the image in the dataset')
    provenance = traits.Dict(mandatory=True, desc='options and versions for the side file')
    made_from = traits.Dict(mandatory=True, desc='all but the hash of the image')
    base_directory = traits.Str(mandatory=True)
    keep_maps = traits.Bool(True, usedefault=True, desc='in the output dataset, not only to draw')
    transform = File(exists=True, desc='template → native (.npz)')
    template = File(exists=True, desc='template on the grid of the derivatives')
    mask_native = File(exists=True, desc='native brain mask')
    connectivity = File(exists=True, desc='what the model got of the functional images')
    without = traits.Str(desc='why it got none')
    atlas = traits.Str(desc='regions of the connectivity')
    atlas_table = File(exists=True)
    cbv = traits.Dict({}, usedefault=True, desc='where a map of blood volume came from')


class _SaveOutputSpec(TraitedSpec):
    table = File(exists=True, desc='prediction table of the scan')
    native_maps = traits.List(File(exists=True), desc='explanations in the own space')
    units = traits.List(traits.Str, desc='unit of each map')


class SavePrediction(SimpleInterface):
    """Write the row of ``_brainage.tsv`` and, if they stay, the maps in both spaces."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _SaveInputSpec
    output_spec = _SaveOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.bundles.bundle import load_bundle
        from bids_brainage.inference.row import flags_of, prediction_facts, prediction_row
        from bids_brainage.inputs.kinds import sees_other_maps
        from bids_brainage.interfaces.explanation import save_maps
        from bids_brainage.interfaces.importance import (
            functional_facts,
            save_importances,
            sources_of,
        )
        from bids_brainage.names import derivative_path, parse_name
        from bids_brainage.outputs.provenance import MADE_FROM
        from bids_brainage.outputs.tables import write_brainage

        prediction = json.loads(Path(self.inputs.prediction).read_text('utf-8'))
        bundle = load_bundle(self.inputs.bundle, verify=False)
        maps = save_maps(self.inputs, prediction['maps'], bundle)
        save_importances(self.inputs, prediction['fusion'], bundle)
        functional, functional_flags = functional_facts(self.inputs, prediction)
        root = Path(self.inputs.base_directory)
        entities = parse_name(self.inputs.source_file)
        table = root / derivative_path(
            {**entities, 'suffix': 'brainage', 'extension': '.tsv'}, entities['datatype']
        )
        own_flags = flags_of(
            prediction,
            bundle,
            self.inputs.scan['age'],
            estimated=bool(prediction['estimated']),
            other_maps=sees_other_maps(bundle.input, self._quality().get('measures', {})),
            simulated=self.inputs.simulated,
        )
        flags = [*self._quality().get('flags', []), *own_flags, *functional_flags]
        row = prediction_row(self.inputs.scan, prediction, bundle, flags)
        facts = json.loads(Path(self.inputs.facts).read_text('utf-8'))
        write_brainage(
            table,
            [row],
            models={
                bundle.name: {
                    **prediction_facts(prediction, bundle),
                    **functional,
                    **self.inputs.cbv,
                    MADE_FROM: {**self.inputs.made_from, 'InputSHA256': facts['sha256']},
                }
            },
            metadata={
                **self.inputs.provenance,
                'Sources': sources_of(self.inputs),
                'InputSHA256': facts['sha256'],
                'Quality': self._quality().get('measures', {}),
            },
        )
        self._results['table'] = str(table)
        self._results['native_maps'] = [str(m.native) for m in maps]
        self._results['units'] = [m.unit for m in maps]
        return runtime

    def _quality(self) -> dict[str, Any]:
        from nipype.interfaces.base import isdefined

        if not isdefined(self.inputs.quality):
            return {}
        content: dict[str, Any] = json.loads(Path(self.inputs.quality).read_text('utf-8'))
        return content


class _FiguresInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='native, bias-corrected')
    mask = File(exists=True, mandatory=True, desc='native')
    tissues = File(exists=True, mandatory=True, desc='native tissue labels')
    regions = File(exists=True, mandatory=True, desc='region labels, own space')
    warped = File(exists=True, mandatory=True, desc='T1w on the template grid')
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    template_gm = File(exists=True, mandatory=True)
    source_file = traits.Str(mandatory=True)
    base_directory = traits.Str(mandatory=True)
    brief = traits.Bool(False, usedefault=True, desc='the most telling slices only')


class _FiguresOutputSpec(TraitedSpec):
    figures = traits.List(File(exists=True))


class DrawScan(SimpleInterface):
    """Draw mask, registration, tissues, regions and a summary of one scan for its report."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _FiguresInputSpec
    output_spec = _FiguresOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.pictures import figures
        from bids_brainage.pictures.summary import plot_summary

        given = {
            name: Path(getattr(self.inputs, name))
            for name in (
                't1w',
                'mask',
                'tissues',
                'regions',
                'warped',
                'template',
                'template_mask',
                'template_gm',
            )
        }
        out = {
            what: figure_path(self.inputs.base_directory, self.inputs.source_file, what)
            for what in ('mask', 'registration', 'segmentation', 'regions', 'summary')
        }
        plot_summary(given['t1w'], given['mask'], out['summary'])
        if self.inputs.brief:
            self._results['figures'] = [str(out['summary'])]
            return runtime
        figures.plot_mask(given['t1w'], given['mask'], out['mask'])
        figures.plot_registration(
            given['template'],
            given['warped'],
            out['registration'],
            template_mask=given['template_mask'],
            template_gm=given['template_gm'],
        )
        figures.plot_segmentation(given['t1w'], given['tissues'], out['segmentation'])
        figures.plot_regions(given['t1w'], given['regions'], out['regions'])
        self._results['figures'] = [str(path) for path in out.values()]
        return runtime


class _MaskInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='native')
    mask = File(exists=True, mandatory=True, desc='native')
    source_file = traits.Str(mandatory=True)
    base_directory = traits.Str(mandatory=True)
    brief = traits.Bool(False, usedefault=True, desc='the most telling slices only')


class DrawMask(SimpleInterface):
    """Draw the mask of a scan that is not registered."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _MaskInputSpec
    output_spec = _FiguresOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.pictures.figures import plot_mask
        from bids_brainage.pictures.summary import plot_summary

        where = (self.inputs.base_directory, self.inputs.source_file)
        out, brief = figure_path(*where, 'mask'), figure_path(*where, 'summary')
        plot_summary(Path(self.inputs.t1w), Path(self.inputs.mask), brief)
        self._results['figures'] = [str(brief)]
        if not self.inputs.brief:
            plot_mask(Path(self.inputs.t1w), Path(self.inputs.mask), out)
            self._results['figures'].append(str(out))
        return runtime


class _ExplanationInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='native, bias-corrected')
    mask = File(exists=True, mandatory=True, desc='native brain mask')
    maps = traits.List(File(exists=True), mandatory=True, desc='native explanation maps')
    units = traits.List(traits.Str, mandatory=True)
    source_file = traits.Str(mandatory=True)
    base_directory = traits.Str(mandatory=True)
    brief = traits.Bool(False, usedefault=True, desc='the most telling slices only')


class DrawExplanations(SimpleInterface):
    """Draw the explanation maps of one model on the person's own brain, the first also briefly."""

    _always_run = True  # outputs that somebody deleted come back
    input_spec = _ExplanationInputSpec
    output_spec = _FiguresOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from bids_brainage.names import parse_name
        from bids_brainage.pictures.figures import plot_saliency
        from bids_brainage.pictures.summary import plot_summary

        t1w, mask = Path(self.inputs.t1w), Path(self.inputs.mask)
        where = (self.inputs.base_directory, self.inputs.source_file)
        drawn: list[str] = []
        for path, unit in zip(map(Path, self.inputs.maps), self.inputs.units, strict=True):
            entities = parse_name(path.name)
            shown: dict[str, Any] = {'unit': unit, 'signed': unit == 'year'}
            if not drawn:
                brief = figure_path(*where, 'summary', model=entities['model'])
                plot_summary(t1w, mask, brief, path, **shown)
                drawn.append(str(brief))
            if not self.inputs.brief:
                out = figure_path(*where, entities['desc'], model=entities['model'])
                plot_saliency(t1w, path, out, mask=mask, **shown)
                drawn.append(str(out))
        self._results['figures'] = drawn
        return runtime


def figure_path(root: str, source_file: str, what: str, **entities: str) -> Path:
    """Return the path of a figure of a scan."""
    from bids_brainage.names import derivative_path, parse_name

    named = {**parse_name(source_file), 'desc': what, 'extension': '.svg', **entities}
    return Path(root) / derivative_path(named, 'figures')
