"""The products of a run: what of them stands in the output dataset and is up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.measured import MeasuredScan
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import learns_graph
from bids_brainage.names import derivative_path, memo_path, side_file
from bids_brainage.outputs import read_brainage
from bids_brainage.outputs.files import read_json
from bids_brainage.outputs.provenance import MADE_FROM, remembered_sha256
from bids_brainage.preprocessing.template import DEFAULT_SPACE
from bids_brainage.workflows.images import (
    CBV,
    IMAGES,
    MAPS,
    cbv_path,
    image_path,
    kept_images,
    map_path,
    measures_path,
    table_path,
    volumes_path,
)
from bids_brainage.workflows.made_from import (
    bundle_hash,
    of_cbv,
    of_connectivity,
    of_images,
    of_mask,
    of_prediction,
)
from bids_brainage.workflows.naming import takes_cbv, takes_native
from bids_brainage.workflows.settings import Stored

if TYPE_CHECKING:
    from bids_brainage.dataset.aicbv import CbvSource
    from bids_brainage.dataset.series import Series
    from bids_brainage.inputs.harmonise import SiteShift
    from bids_brainage.outputs.connectivity import Connectivity

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Product:
    """One thing that a run makes of a scan.

    Attributes
    ----------
    paths : tuple of Path
        Files that it consists of.
    stored : mapping or None
        What it was made from, as its side file says; None if there is no such product.
    made_from : callable
        Returns what it would be made from now.
    """

    paths: tuple[Path, ...]
    stored: Facts | None
    made_from: Callable[[], Facts]

    @property
    def is_current(self) -> bool:
        """Whether it is there, and would come out the same if it were made again."""
        return (
            self.stored is not None
            and all(path.is_file() for path in self.paths)
            and dict(self.stored) == dict(self.made_from())
        )


@dataclass(frozen=True)
class CbvMaps:
    """Maps of cerebral blood volume of a run.

    Attributes
    ----------
    sources : mapping
        URI of a T1w image → where its map comes from.
    problems : mapping
        URI of a T1w image → why the map that it has cannot be used.
    """

    sources: Mapping[str, CbvSource] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


class Ledger:
    """Says of every product of a run whether it is up to date.

    Outputs of the version before `MADE_FROM` say the same in other keys, which are read, too.

    Parameters
    ----------
    config : Config
    series : sequence of Series
        All functional runs of the run.
    remember : bool
        Keep the hashes of input files for the next run; False writes nothing.
    """

    def __init__(
        self, config: Config, series: Sequence[Series] = (), *, remember: bool = True
    ) -> None:
        self.config = config
        self.series = series
        self._root = config.execution.output_dir
        self._remember = remember
        self._kept = kept_images(config)
        self._hashes: dict[Path, str] = {}

    def sha256(self, path: Path, subject: str) -> str:
        """Return the hash of an input file of a subject, read only if the file has changed.

        A file that cannot be read has none: what was made from it counts as to be made anew, and
        the step that reads it says what is wrong.
        """
        if path not in self._hashes:
            memo = self._root / memo_path(subject)
            try:
                self._hashes[path] = remembered_sha256(path, memo, remember=self._remember)
            except OSError:
                self._hashes[path] = ''
        return self._hashes[path]

    def images(self, scan: Scan) -> Product:
        """Return the images of a scan that the level of output keeps, or its volumes alone."""
        if 't1w' in self._kept:
            return self._images(scan, self._kept)
        table = volumes_path(self._root, scan)
        stored = read_json(side_file(table)).get(MADE_FROM)
        return Product((table,), stored, lambda: self._from(scan, of_images(self.config)))

    def made_again(self, scan: Scan) -> bool:
        """Return whether a scan was preprocessed as it would be now, and its images are gone."""
        stored = read_json(side_file(volumes_path(self._root, scan))).get(MADE_FROM)
        if stored is None or self._images(scan, IMAGES).is_current:
            return False
        return dict(stored) == dict(self._from(scan, of_images(self.config)))

    def _images(self, scan: Scan, kept: Collection[str]) -> Product:
        """Return the preprocessed images of a scan, with the volumes of its regions."""
        paths = {image: image_path(self._root, scan, image) for image in IMAGES if image in kept}
        sides = {i: side_file(paths[i]) for i in ('t1w', 'structures', 'regions') if i in kept}
        stored = read_json(sides['t1w']).get(MADE_FROM)
        if stored is None and 'similarity' in self._former(scan).get('Quality', {}):
            regions = read_json(sides['regions']).get('Segmentation', {})
            former = self._former_origin(scan)
            stored = {**former, 'SegmentationSHA256': regions.get('WeightsSHA256')}
        return Product(
            (*paths.values(), *(side for image, side in sides.items() if image != 't1w')),
            stored,
            lambda: self._from(scan, of_images(self.config)),
        )

    def mask(self, scan: Scan) -> Product:
        """Return the brain mask of a scan in its own space."""
        path = image_path(self._root, scan, 'mask_native')
        stored = read_json(side_file(path)).get(MADE_FROM)
        if stored is None and 'mask_ml' in self._former(scan).get('Quality', {}):
            stored = self._former_origin(scan)
        return Product((path,), stored, lambda: self._from(scan, of_mask(self.config)))

    def cbv(self, scan: Scan, source: CbvSource) -> Product:
        """Return the map of cerebral blood volume of a scan."""
        path = cbv_path(self._root, scan)
        side = read_json(side_file(path))
        stored = side.get(MADE_FROM)
        if stored is None and 'SourceSHA256' in side:
            stored = {**self._former_origin(scan), 'SourceSHA256': side['SourceSHA256']}
        return Product((path,), stored, lambda: self._from(scan, of_cbv(self.config, source)))

    def lacks_cbv(self, scan: Scan, source: CbvSource) -> bool:
        """Return whether the map that this level of output keeps is yet to be made."""
        return CBV in self._kept and not self.cbv(scan, source).is_current

    def connectivity(self, series: Series) -> Product:
        """Return the connectivity of a functional run, with its derivatives."""
        from bids_brainage.runs.series import correlation_path, series_paths

        side = read_json(side_file(correlation_path(self.config, series)))
        stored = side.get(MADE_FROM)
        if stored is None and len(side.get('Sources', ())) == 1:
            stored = {**_origin(side), 'Source': side['Sources'][0]}
        if series.problem or not series.source.is_file():
            stored = None

        def made_from() -> Facts:
            digest = self.sha256(series.source, series.scan.subject)
            facts = of_connectivity(self.config, series.source_uri)
            return {**facts, 'InputSHA256': digest}

        return Product(tuple(series_paths(self.config, series)), stored, made_from)

    def prediction(
        self,
        scan: Scan,
        bundle: Bundle,
        cbv: CbvSource | None = None,
        *,
        final: bool = False,
        shift: SiteShift | None = None,
    ) -> Product:
        """Return the prediction of a model: its row, and its maps.

        Parameters
        ----------
        scan : Scan
        bundle : Bundle
        cbv : CbvSource or None
            For models that take a map of blood volume: where that of the scan comes from.
        final : bool
            Take the connectivity that there is; else a model that takes it has no prediction
            while a functional run of the session is yet to be processed.
        shift : SiteShift or None
            What brings tables of other programs to the scale of the model.
        """
        table = table_path(self._root, scan)
        rows = [
            row
            for row in (read_brainage(table) if table.is_file() else ())
            if row['source'] == scan.uri and row['model'] == bundle.name and row['status'] == 'ok'
        ]
        side = self._former(scan)
        facts = side.get('Models', {}).get(bundle.name)
        stored = None
        if rows and facts is not None:
            stored = facts.get(MADE_FROM, _former_prediction(side, facts, rows[0]))
        graph = learns_graph(bundle.input)
        if graph and not final and self._waits(scan):
            stored = None
        if takes_cbv(bundle) and (cbv is None or self.lacks_cbv(scan, cbv)):
            stored = None

        def made_from() -> Facts:
            network = self.connectivity_of(scan, bundle.input['n_nodes']) if graph else None
            facts = of_prediction(self.config, scan, bundle, cbv, network, shift)
            return self._from(scan, facts)

        return Product(tuple(self._maps(scan, bundle)), stored, made_from)

    def connectivity_of(self, scan: Scan, n_nodes: int) -> Connectivity:
        """Return the connectivity of the session of a T1w image, as it is on disk now.

        Parameters
        ----------
        scan : Scan
            T1w image.
        n_nodes : int
            Regions that the model takes.
        """
        from bids_brainage.runs.series import session_connectivity

        own = session_series(scan, self.series)
        current = [s for s in own if self.connectivity(s).is_current]
        return session_connectivity(self.config, own, current, n_nodes)

    def stored(self, scan: Scan, cbv: CbvSource | None = None) -> Stored:
        """Return what of a scan need not be made again."""
        images, mask = self._images(scan, IMAGES).is_current, self.mask(scan).is_current
        return Stored(
            self._quality(scan, 't1w') if images else None,
            self._quality(scan, 'mask_native') if mask else None,
            cbv_path(self._root, scan) if cbv and self.cbv(scan, cbv).is_current else None,
        )

    def _quality(self, scan: Scan, image: str) -> Facts:
        side = read_json(side_file(image_path(self._root, scan, image)))
        quality: Facts = side.get('Quality') or self._former(scan)['Quality']
        return quality

    def _from(self, scan: Scan, facts: Facts) -> Facts:
        return {**facts, 'InputSHA256': self.input_sha256(scan)}

    def input_sha256(self, scan: Scan) -> str | dict[str, str]:
        """Return the hash of the file of a scan; of several by name."""
        found = {path.name: self.sha256(path, scan.subject) for path in scan.files}
        return found if len(found) > 1 else found[scan.path.name]

    def _maps_elsewhere(self, scan: MeasuredScan, bundle: Bundle) -> list[Path]:
        chosen = self.config.workflow.saliency
        drawn = scan.segmentation is not None and MAPS in self._kept
        methods = bundle.metadata['saliency'] if drawn else ()
        return [measures_path(self._root, scan)] + [
            map_path(self._root, scan, bundle.label, method)
            for method in methods
            if chosen is None or method in chosen
        ]

    def _waits(self, scan: Scan) -> bool:
        own = session_series(scan, self.series)
        return not all(self.connectivity(series).is_current for series in own)

    def _former(self, scan: Scan) -> dict[str, Any]:
        return read_json(table_path(self._root, scan).with_suffix('.json'))

    def _former_origin(self, scan: Scan) -> Facts:
        return _origin(self._former(scan))

    def _maps(self, scan: Scan, bundle: Bundle) -> list[Path]:
        """Return the files of a prediction beside its row."""
        if isinstance(scan, MeasuredScan):
            return self._maps_elsewhere(scan, bundle)
        if MAPS not in self._kept:
            return []
        place = {**scan.entities, 'space': DEFAULT_SPACE, 'res': '1'}
        paths = []
        if takes_native(scan, bundle):
            place = {**scan.entities, 'space': 'T1w'}
            paths = [image_path(self._root, scan, 'mask_native')]
        methods = bundle.metadata['saliency'][:1]
        if (chosen := self.config.workflow.saliency) is not None:
            methods = [m for m in chosen if m in bundle.metadata['saliency']]
        for method in methods:
            if method != 'attention':  # one file per stream, named by the model
                named = {'model': bundle.label, 'desc': method.replace('_', '')}
                named = {**place, **named, 'suffix': 'saliency'}
                paths.append(self._root / derivative_path(named, scan.datatype))
        return paths


def session_series(scan: Scan, series: Sequence[Series]) -> list[Series]:
    """Return the functional runs of the session of a T1w image."""
    return [s for s in series if (s.scan.subject, s.scan.session) == (scan.subject, scan.session)]


def _origin(side: Facts) -> dict[str, Any]:
    """Return input and options of a product of the former version."""
    return {key: side.get(key) for key in ('InputSHA256', 'ConfigurationHash')}


def _former_prediction(side: Facts, facts: Facts, row: Facts) -> dict[str, Any]:
    """Return what a prediction of the former version was made from, in today's keys."""
    found = {
        **_origin(side),
        'RandomSeed': side.get('RandomSeed'),
        'BundleHash': bundle_hash(
            facts.get('WeightsSHA256'),
            facts.get('BundleConfigHash'),
            facts.get('Conformal'),
            facts.get('BiasCorrection'),
        ),
        'SyntheticScans': bool(facts.get('SyntheticScans')),
    }
    if 'CBVSHA256' in facts:
        found['CBVSHA256'] = facts['CBVSHA256']
    if 'Modality' in facts:
        found['ConnectivitySHA256'] = facts.get('ConnectivitySHA256')
    if facts.get('ReferenceAge') is not None and row['age'] is not None:
        found['ReferenceAge'] = facts['ReferenceAge']
    return found
