"""What a participant-level run has to do: images, models, and what is finished already."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bids_brainage.bundles.bundle import Bundle, resolve_bundle
from bids_brainage.bundles.places import model_dirs
from bids_brainage.config import Config
from bids_brainage.dataset import find_scans
from bids_brainage.dataset.header import header_words
from bids_brainage.dataset.measured import MeasuredScan
from bids_brainage.dataset.scan import Scan
from bids_brainage.errors import BundleError, MissingInputError, NothingSelectedError, OptionError
from bids_brainage.inputs.arrays import check_segmentation
from bids_brainage.inputs.kinds import kind_of, learns_graph
from bids_brainage.names import model_label
from bids_brainage.outputs.logs import IMPORTANT
from bids_brainage.runs.elsewhere import (
    Elsewhere,
    check_programs,
    default_models,
    plan_elsewhere,
    select_measured,
    todo_line,
)
from bids_brainage.runs.ledger import CbvMaps, Ledger, session_series
from bids_brainage.runs.prepared import with_prepared
from bids_brainage.segmentation.weights import segmentation_facts
from bids_brainage.workflows.naming import takes_cbv, takes_native

if TYPE_CHECKING:
    from bids_brainage.dataset.series import Series

LOG = logging.getLogger('bids_brainage')

Work = tuple[tuple[Scan, tuple[Bundle, ...]], ...]


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes
    ----------
    scans : tuple of Scan
        All T1w images selected.
    bundles : tuple of Bundle
        Models of images.
    todo : tuple of (Scan, bundles)
        What has no result yet.
    unreadable : tuple of (Scan, str)
        T1w images that cannot be read, with the reason.
    series : tuple of Series
        All functional runs selected.
    series_todo : tuple of Series
        Functional runs without all their files.
    cbv : CbvMaps
        Maps of cerebral blood volume.
    without : tuple of (Scan, Bundle)
        Models that have to do without such a map.
    images : frozenset of str
        URIs of the T1w images whose preprocessed images, or blood-volume map, are to be made.
    elsewhere : Elsewhere
        What other programs measured, with its models.
    again : int
        How many T1w images are preprocessed again only because their images were not kept.
    """

    scans: tuple[Scan, ...]
    bundles: tuple[Bundle, ...]
    todo: Work
    unreadable: tuple[tuple[Scan, str], ...] = ()
    series: tuple[Series, ...] = ()
    series_todo: tuple[Series, ...] = ()
    cbv: CbvMaps = field(default_factory=CbvMaps)
    without: tuple[tuple[Scan, Bundle], ...] = ()
    images: frozenset[str] = frozenset()
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    again: int = 0

    @property
    def all_scans(self) -> tuple[Scan, ...]:
        """Images, and visits that other programs measured."""
        return (*self.scans, *self.elsewhere.scans)

    @property
    def all_bundles(self) -> tuple[Bundle, ...]:
        """Models of images and of tables."""
        return (*self.bundles, *self.elsewhere.bundles)

    @property
    def n_ages(self) -> int:
        """How many predictions the run is asked for."""
        return len(self.scans) * len(self.bundles) + self.elsewhere.n_ages

    @property
    def first(self) -> Work:
        """Scans whose images are to be made, and the models that wait for no functional run."""
        pairs = (
            (scan, tuple(b for b in bundles if not self._waits(scan, b)))
            for scan, bundles in self.todo
        )
        return tuple((s, bundles) for s, bundles in pairs if bundles or s.uri in self.images)

    @property
    def second(self) -> Work:
        """Scans with the models that take connectivity which is made in this run."""
        pairs = (
            (scan, tuple(b for b in bundles if self._waits(scan, b)))
            for scan, bundles in self.todo
        )
        return tuple((scan, bundles) for scan, bundles in pairs if bundles)

    @property
    def busy(self) -> tuple[Scan, ...]:
        """Images that have a folder of their own in the work folder while the run lasts."""
        return images_of(self.todo, self.series_todo)

    def _waits(self, scan: Scan, bundle: Bundle) -> bool:
        waiting = bool(session_series(scan, self.series_todo))
        return learns_graph(bundle.input) and waiting


def images_of(todo: Work, series: Sequence[Series]) -> tuple[Scan, ...]:
    """Return the images that a workflow works on, also the T1w that a functional run needs."""
    scans = [scan for scan, _ in todo] + [item.scan for item in series]
    scans += [item.t1w for item in series if item.t1w is not None]
    return tuple({scan.uri: scan for scan in scans}.values())


def select_images(config: Config) -> tuple[tuple[Scan, ...], tuple[Series, ...]]:
    """Find the T1w images and functional runs that the options select.

    Raises
    ------
    MissingInputError
        If there is no T1w image among them.
    """
    execution = config.execution
    scans = find_scans(
        execution.bids_dir,
        participant_labels=execution.participant_label or None,
        session_labels=execution.session_label or None,
        task_ids=execution.task_id or None,
        filters=execution.bids_filters,
        database_dir=execution.database_to_use,
        validate=not execution.skip_bids_validation,
        age_column=config.workflow.age_column,
    )
    found = tuple(scan for scan in scans if scan.suffix == 'T1w')
    if not found:
        raise MissingInputError(
            f'{execution.bids_dir}: no T1w image among what was selected '
            f'({len(scans)} other images). Brain age needs a file like '
            'sub-01/anat/sub-01_T1w.nii.gz; check labels and filters.'
        )
    others = [scan for scan in scans if scan.suffix != 'T1w']
    found = with_prepared(config, found)
    if not config.execution.task_id and not others:
        return found, ()
    from bids_brainage.runs.series import select_series

    return found, select_series(config, (*found, *others))


def select_all(
    config: Config,
) -> tuple[tuple[Scan, ...], tuple[Series, ...], tuple[MeasuredScan, ...]]:
    """Find images, functional runs, and what other programs measured.

    Raises
    ------
    BrainAgeError
        There is neither an image nor a table among what was selected.
    """
    measured = select_measured(config)
    try:
        scans, series = select_images(config)
    except (MissingInputError, NothingSelectedError) as error:
        if not measured:
            raise
        LOG.warning('tables only: %s', error)
        return (), (), select_measured(config, tell=True)
    return scans, series, measured


def tell_headers(plan: Plan) -> None:
    """Say of every image to do what contradicts itself in its header."""
    for scan in plan.busy:
        for word in [] if scan.problem else header_words(scan.path):
            LOG.warning('%s: %s', scan.relative, word)


def people_missing(config: Config, scans: Sequence[Scan]) -> list[str]:
    """Return the participants that were asked for by name and have no T1w image to use."""
    found = {scan.subject for scan in scans}
    return [label for label in config.execution.participant_label if label not in found]


def resolve_models(
    config: Config, programs: Collection[str] = (), *, images: bool = True
) -> tuple[Bundle, ...]:
    """Find all bundles, telling all problems together.

    Parameters
    ----------
    config : Config
    programs : collection of str
        Programs whose tables there are.
    images : bool
        Whether there are images, too.

    Raises
    ------
    MissingInputError
        If a model is not there or damaged.
    OptionError
        If two would write the same file names, or an option suits none of them.
    """
    names = config.workflow.models or default_models(programs, images=images)
    bundles, problems = [], []
    for name in dict.fromkeys(names):
        try:
            bundle = resolve_bundle(name, model_dirs(config.workflow.model_dir))
            if kind_of(bundle.input).is_segmented:
                check_segmentation(bundle.input, segmentation_facts(), bundle.name)
            bundles.append(bundle)
        except BundleError as error:
            problems.append(str(error))
    if problems:
        raise MissingInputError('\n'.join(problems))
    check_programs(bundles, programs, images=images)
    bundles += _partners(config, bundles)
    labels = [bundle.label for bundle in bundles]
    labels += [model_label(name) for name in names_of_combined(config, bundles)]
    if len(set(labels)) < len(labels):
        raise OptionError(
            f'two models share the label of their file names: {sorted(labels)}. Run them into '
            'different output folders.'
        )
    if config.workflow.synthetic_slices and not any(kind_of(b.input).native for b in bundles):
        raise OptionError(
            '--synthetic-slices is for models of thick slices (input kind t1w_clinical), and none '
            f'was asked for: {", ".join(b.name for b in bundles)}. Name one with --models.'
        )
    if config.workflow.consensus:
        from bids_brainage.inference.consensus import consensus_weights
        from bids_brainage.runs.combine import consensus_of

        members = consensus_of(bundles)
        weights = consensus_weights([member for member, _ in members])
        shares = ', '.join(f'{name} {weight:.3f}' for name, weight in weights.items())
        LOG.log(IMPORTANT, 'consensus %s', shares)
    return tuple(bundles)


def _partners(config: Config, bundles: Sequence[Bundle]) -> list[Bundle]:
    """Return the networks that the regressions of the bundles need and that were not named."""
    known, added = {bundle.name: bundle for bundle in bundles}, []
    for bundle in bundles:
        partner = bundle.metadata.get('fusion', {}).get('partner')
        if not partner:
            continue
        name, digest = partner['name'], partner['weights_sha256']
        if name not in known:
            try:
                known[name] = resolve_bundle(name, model_dirs(config.workflow.model_dir))
            except BundleError as error:
                raise MissingInputError(
                    f'{bundle.name} is combined with {name}: {error}'
                ) from error
            added.append(known[name])
            LOG.log(IMPORTANT, 'model     %s is added: %s needs it', name, bundle.name)
        if known[name].weights_sha256 != digest:
            raise MissingInputError(
                f'{bundle.name} was combined with other weights of {name}: expected '
                f'{digest[:12]}, found {known[name].weights_sha256[:12]} in {known[name].path}. '
                'Install the right ones, or train again.'
            )
    return added


def names_of_combined(config: Config, bundles: Sequence[Bundle]) -> list[str]:
    """Return the names of the rows that are computed from other rows of a run."""
    if not config.workflow.consensus and not any('fusion' in b.metadata for b in bundles):
        return []
    from bids_brainage.runs.combine import combined_names

    return combined_names(config, bundles)


def make_plan(
    config: Config,
    scans: Sequence[Scan],
    series: Sequence[Series],
    bundles: tuple[Bundle, ...],
    ledger: Ledger,
    measured: Sequence[MeasuredScan] = (),
) -> Plan:
    """Compare what is asked for with what stands in the output dataset."""
    elsewhere = plan_elsewhere(measured, bundles, ledger)
    bundles = tuple(b for b in bundles if b not in elsewhere.bundles)
    series_todo = tuple(s for s in series if not ledger.connectivity(s).is_current)
    aligned = {s.t1w.uri for s in series_todo if s.t1w is not None}
    maps = CbvMaps()
    if config.workflow.aicbv_weights is not None or config.execution.derivatives:
        from bids_brainage.runs.cbv import select_cbv

        maps = select_cbv(config, scans, ledger.sha256)
    todo, unreadable, without, images = [], [], [], set()
    for scan in scans:
        if scan.problem:
            unreadable.append((scan, scan.problem))
            continue
        source = maps.sources.get(scan.uri)
        can = [b for b in bundles if source is not None or not takes_cbv(b)]
        without += [(scan, b) for b in bundles if b not in can]
        registered = scan.uri in aligned or any(not takes_native(scan, b) for b in can)
        if registered and not ledger.images(scan).is_current:
            images.add(scan.uri)
        if source is not None and ledger.lacks_cbv(scan, source):
            images.add(scan.uri)
        left = tuple(b for b in can if not ledger.prediction(scan, b, source).is_current)
        if left or scan.uri in images:
            todo.append((scan, left))
    return Plan(
        tuple(scans),
        bundles,
        tuple(todo),
        tuple(unreadable),
        tuple(series),
        series_todo,
        maps,
        tuple(without),
        frozenset(images),
        elsewhere,
        sum(_made_again(scan, left, images, ledger) for scan, left in todo),
    )


def images_needed(bundles: Sequence[Bundle], series: Sequence[Series]) -> bool:
    """Return whether a model or a functional run takes T1w images."""
    return bool(series) or any(not kind_of(bundle.input).elsewhere for bundle in bundles)


def _made_again(
    scan: Scan, bundles: Sequence[Bundle], images: Collection[str], ledger: Ledger
) -> bool:
    """Return whether a scan is preprocessed only because its images were not kept."""
    needed = scan.uri in images or any(not takes_native(scan, b) for b in bundles)
    return needed and ledger.made_again(scan)


def again_words(plan: Plan) -> list[str]:
    """Say, if so, that scans are preprocessed again because their images were not kept."""
    if not plan.again:
        return []
    return [
        f'{plan.again} of them preprocessed before: their images were not kept (--level), and are '
        'made again.'
    ]


def show_reports(scans: Sequence[Scan]) -> int:
    """Say which reports would be written again, and write nothing."""
    people = dict.fromkeys(f'sub-{scan.subject}.html' for scan in scans)
    lines = [f'{len(people)} reports:', *(f'  {page}' for page in people), 'Nothing was written.']
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0


def show_plan(plan: Plan) -> int:
    """Say what would run, and write nothing."""
    lines = [f'{len(plan.scans)} T1w images, {len(plan.todo)} to do:']
    for scan, bundles in plan.todo:
        lines.append(todo_line(scan, [b.name for b in bundles] or ['images']))
    lines += again_words(plan)
    lines += [f'  {scan.relative}  cannot be read: {why}' for scan, why in plan.unreadable]
    lines += plan.elsewhere.lines()
    lines += [
        f'  {scan.relative}  {bundle.name}: '
        + plan.cbv.problems.get(scan.uri, 'no blood-volume map')
        for scan, bundle in plan.without
    ]
    done = len(plan.scans) - len(plan.todo) - len(plan.unreadable)
    lines.append(f'{done} have their results already.')
    if plan.series:
        lines.append(f'{len(plan.series)} BOLD series, {len(plan.series_todo)} to do:')
    for series in plan.series_todo:
        origin = 'with ' + series.t1w.relative if series.t1w else f'from {series.source_uri}'
        lines.append(f'  {series.scan.relative}  {series.problem or origin}')
    lines.append('Nothing was written.')
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0
