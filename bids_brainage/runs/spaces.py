"""Images of a participant-level run in further spaces (``--output-spaces``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import MissingInputError, OptionError
from bids_brainage.names import derivative_path, log_dir, parse_name, side_file
from bids_brainage.outputs.citation import append_methods
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.provenance import MADE_FROM
from bids_brainage.outputs.status import StatusLog
from bids_brainage.preprocessing.template import (
    DEFAULT_SPACE,
    find_template,
    templateflow_files,
)
from bids_brainage.runs.batches import batch_size, parts
from bids_brainage.runs.environment import template_root
from bids_brainage.runs.progress import Progress
from bids_brainage.runs.settle import crash_reason
from bids_brainage.runs.work import Sweeper
from bids_brainage.workflows.naming import scan_workflow_name

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow
    from niworkflows.utils.spaces import Reference

    from bids_brainage.workflows.spaces import OutputSpace, SpaceWork

LOG = logging.getLogger('bids_brainage')

Execute = Callable[['LiterateWorkflow', Progress], str]

NATIVE = ('T1w', 'anat')
REGISTERED_AT = ('2', '1')
"""Resolutions, best first, at which the template of another space is registered."""

TISSUES: tuple[dict[str, str], ...] = (
    {'suffix': 'dseg'},
    {'desc': 'structures', 'suffix': 'dseg'},
    {'label': 'GM', 'suffix': 'probseg'},
)
"""Images that stand on the grid of the default template only."""


def find_spaces(config: Config) -> tuple[OutputSpace, ...]:
    """Find the templates of the spaces that were asked for; fetch them if that is allowed.

    Called before anything else reads ``TEMPLATEFLOW_HOME``: the spaces come from the archive of
    the user, whereas scans are registered to the packaged template.

    Raises
    ------
    OptionError
        A space is not understood, or is none of volumes.
    MissingInputError
        The template of a space is not on this machine.
    """
    wanted = config.workflow.output_spaces
    if not wanted:
        return ()
    if not os.environ.get('TEMPLATEFLOW_HOME'):
        template_root(config.execution.work_dir)
    os.environ['TEMPLATEFLOW_AUTOUPDATE'] = 'off'
    from niworkflows.utils.spaces import Reference, SpatialReferences
    from templateflow import api

    spaces = SpatialReferences()
    for text in wanted:
        label = text.split(':', 1)[0]
        if label not in (*NATIVE, *api.templates()):
            raise MissingInputError(
                f'--output-spaces {text}: the TemplateFlow archive '
                f'{os.environ["TEMPLATEFLOW_HOME"]} has no such space, only '
                f'{", ".join(api.templates())}. {_advice(label)}'
            )
        try:
            for reference in Reference.from_string(text):
                spaces.add(reference)
        except ValueError as error:
            raise OptionError(f'--output-spaces {text}: {error}') from error
    found = [_space(reference, config) for reference in spaces.references]
    return tuple(dict.fromkeys(space for space in found if space is not None))


def write_spaces(
    config: Config,
    scans: Sequence[Scan],
    spaces: Sequence[OutputSpace],
    status: StatusLog,
    execute: Execute,
) -> int:
    """Write the images of finished scans in further spaces; return how many scans failed.

    Parameters
    ----------
    config : Config
    scans : sequence of Scan
        T1w images; those without images in the output dataset are passed over.
    spaces : sequence of OutputSpace
    status : StatusLog
    execute : callable
        Runs a workflow, reporting to a `Progress`.
    """
    work = list(plan_spaces(config.execution.output_dir, scans, spaces))
    return sum(
        _write_batch(config, part, spaces, status, execute)
        for part in parts(work, batch_size(config.nipype.nprocs, config.nipype.plugin))
    )


def _write_batch(
    config: Config,
    work: Sequence[SpaceWork],
    spaces: Sequence[OutputSpace],
    status: StatusLog,
    execute: Execute,
) -> int:
    """Write the images of some scans; return how many scans failed."""
    from bids_brainage.workflows.participant import methods_text
    from bids_brainage.workflows.spaces import init_spaces_wf

    execution = config.execution
    workflow = init_spaces_wf(
        work=work,
        template=find_template(template_root(execution.work_dir), resolution=2),
        output_dir=execution.output_dir,
        run_id=execution.run_id,
        omp_nthreads=config.nipype.omp_nthreads,
        sloppy=config.workflow.sloppy,
    )
    workflow.base_dir = str(execution.work_dir)
    names = {scan_workflow_name(item.scan): item.scan for item in work}
    progress = Progress(
        {name: scan.stem for name, scan in names.items()},
        config.nipype.nprocs,
        lambda name, step, result, seconds: status.add(
            names[name].uri, step, result, seconds=seconds
        ),
        workflow.list_node_names(),
        None if execution.keep_work else Sweeper(execution.work_dir, workflow, names).ended,
    )
    stopped = execute(workflow, progress)
    append_methods(
        execution.output_dir, methods_text(workflow), md_only=execution.md_only_boilerplate
    )
    failed = 0
    for scan in names.values():
        left = list(plan_spaces(execution.output_dir, [scan], spaces))
        if left:
            failed += 1
            why = stopped or crash_reason(config, scan) or f'see {log_dir(execution.run_id)}'
            message = f'{", ".join(item.space.name for item in left)}: {why}'
            LOG.error('%s: images in other spaces: failed: %s', scan.stem, message)
            status.add(scan.uri, 'output spaces', 'failed', message=message)
    return failed


def plan_spaces(
    output_dir: Path, scans: Sequence[Scan], spaces: Sequence[OutputSpace]
) -> Iterator[SpaceWork]:
    """Yield what is to be written: images that are absent or older than their sources."""
    from bids_brainage.workflows.spaces import SpaceWork

    for scan in scans:
        place = partial(_place, output_dir, scan)
        mask = place({'desc': 'brain', 'suffix': 'mask'})
        ends = (('T1w', DEFAULT_SPACE), (DEFAULT_SPACE, 'T1w'))
        there, back = (place({'from': a, 'to': b, 'suffix': 'xfm'}) for a, b in ends)
        if not all(path.is_file() for path in (mask, there, back)):
            continue
        for space in spaces:
            images = _images(output_dir, scan, space, mask)
            sources = [mask, there, back, *(i['source'] for i in images.values() if i['source'])]
            newest = max(Path(path).stat().st_mtime_ns for path in sources)
            if not all(_is_current(path, newest) for path in images):
                yield SpaceWork(scan, space, mask, there, back, images)


def _is_current(path: Path, newest: int) -> bool:
    return path.is_file() and side_file(path).is_file() and path.stat().st_mtime_ns >= newest


def _images(
    output_dir: Path, scan: Scan, space: OutputSpace, mask: Path
) -> dict[Path, dict[str, Any]]:
    """Return the images of a scan in a space, each with what it is made from."""
    where = {'space': space.label, 'res': space.resolution} if space.label else {}
    place = partial(_place, output_dir, scan)
    facts: dict[str, Any] = {}
    if space.label:
        facts['Resolution'] = space.voxels
        if space.label != DEFAULT_SPACE:
            facts['SpatialReference'] = (
                f'https://github.com/templateflow/tpl-{space.label.partition("+")[0]}'
            )

    def made(source: Path | None, native: bool, labels: bool, **side: Any) -> dict[str, Any]:
        origin = mask if source is None else source
        own = {k: v for k, v in read_json(side_file(origin)).items() if source is not None}
        for key in ('Resolution', MADE_FROM):
            own.pop(key, None)
        inside = origin.relative_to(output_dir).as_posix()
        return {
            'source': None if source is None else str(source),
            'native': native,
            'labels': labels,
            'side': {**own, **side, **facts, 'Sources': [*scan.sources, f'bids::{inside}']},
        }

    found = {
        place({**where, 'desc': 'preproc', 'suffix': 'T1w'}): made(
            None, native=True, labels=False, SkullStripped=True
        )
    }
    for entities in TISSUES:
        source = place({'space': DEFAULT_SPACE, 'res': '1', **entities})
        if source.is_file():
            labels = entities['suffix'] == 'dseg'
            found[place({**where, **entities})] = made(source, native=False, labels=labels)
    if not space.label:
        return found
    found[place({**where, 'desc': 'brain', 'suffix': 'mask'})] = made(
        mask, native=True, labels=False
    )
    for source in sorted(mask.parent.glob(f'{scan.stem}_space-T1w_*_saliency.nii.gz')):
        entities = parse_name(source)
        regional = entities['desc'] == 'contribution'
        target = output_dir / derivative_path({**entities, **where}, scan.datatype)
        found[target] = made(source, native=True, labels=regional)
    return found


def _place(output_dir: Path, scan: Scan, entities: dict[str, Any]) -> Path:
    return output_dir / derivative_path({**scan.entities, **entities}, scan.datatype)


def _space(reference: Reference, config: Config) -> OutputSpace | None:
    """Find the files of one space; None for the one that is written anyway."""
    from bids_brainage.workflows.spaces import OutputSpace

    if reference.space in NATIVE:
        return OutputSpace()
    resolution = str(reference.spec.get('res', reference.spec.get('resolution', '1')))
    if not reference.standard or reference.dim != 3 or not resolution.isdigit():
        raise OptionError(
            f'--output-spaces {reference}: expected a volume space of TemplateFlow with a '
            'resolution such as :res-2, or T1w.'
        )
    resolution = str(int(resolution))
    if reference.space == DEFAULT_SPACE:
        if resolution == '1':
            return None
        root = template_root(config.execution.work_dir)
        brain = find_template(root, resolution=int(resolution)).mask
        return OutputSpace(DEFAULT_SPACE, resolution, brain, voxels=_voxels(brain))
    cohort = {'cohort': reference.spec['cohort']} if 'cohort' in reference.spec else {}

    def find(at: str, **query: Any) -> Path | None:
        download = not config.execution.offline
        query = {'resolution': int(at), **query, **cohort}
        return next(iter(templateflow_files(reference.space, download, **query)), None)

    def get(at: str, suffix: str, desc: str | None = 'brain') -> Path:
        path = find(at, desc=desc, suffix=suffix)
        if path is None:
            raise MissingInputError(
                f'--output-spaces {reference}: the template has no {desc or "whole"} {suffix} at '
                f'{at} mm in {os.environ["TEMPLATEFLOW_HOME"]}. {_advice(reference.space)}'
            )
        return path

    brain = get(resolution, 'mask')
    # averages are smooth: 2 mm are enough to register them
    at = next((r for r in REGISTERED_AT if find(r, desc='brain', suffix='mask')), resolution)
    t1w = find(at, desc='brain', suffix='T1w') or get(at, 'T1w', None)
    label = '+'.join([reference.space, *cohort.values()])
    return OutputSpace(label, resolution, brain, t1w, get(at, 'mask'), _voxels(brain))


def _advice(label: str) -> str:
    return (
        'Where there is network, fetch it with `python -c "from templateflow import api; '
        f"api.get('{label}')\"`, and let TEMPLATEFLOW_HOME name the folder that it was put in."
    )


def _voxels(path: Path) -> str:
    import nibabel as nib

    image: Any = nib.load(path)
    zooms = nib.affines.voxel_sizes(image.affine)
    return ' x '.join(f'{zoom:g}' for zoom in zooms.round(3)) + ' mm'
