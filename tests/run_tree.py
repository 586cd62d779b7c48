"""An output dataset of one scan as a run leaves it, without running anything."""

from __future__ import annotations

from bids_brainage.bundles.facts import model_facts
from bids_brainage.names import side_file
from bids_brainage.outputs import brainage_row, write_brainage, write_json
from bids_brainage.outputs.provenance import MADE_FROM, sha256_file
from bids_brainage.workflows.images import image_path, table_path
from bids_brainage.workflows.made_from import of_images, of_mask, of_prediction

MEASURES = {'mask_ml': 1400.0, 'similarity': 0.9}


def leave_results(config, scan, bundle, ledger):
    """Write what a run of this version leaves of a scan and a model."""
    out = config.execution.output_dir
    digest = {'InputSHA256': sha256_file(scan.path)}
    touch_files(config, scan, bundle, ledger)
    for image, facts in (('t1w', of_images(config)), ('mask_native', of_mask(config))):
        made = {MADE_FROM: {**facts, **digest}, 'Quality': MEASURES}
        write_json(side_file(image_path(out, scan, image)), made)
    facts = {**of_prediction(config, scan, bundle), **digest}
    write_row(config, scan, bundle, {MADE_FROM: facts}, {})


def leave_former_results(config, scan, bundle, ledger):
    """Write what a run of the version before `MADE_FROM` left."""
    out = config.execution.output_dir
    touch_files(config, scan, bundle, ledger)
    side = side_file(image_path(out, scan, 'regions'))
    segmentation = of_images(config)['SegmentationSHA256']
    write_json(side, {'Segmentation': {'WeightsSHA256': segmentation}})
    origin = {
        **of_mask(config),
        'InputSHA256': sha256_file(scan.path),
        'RandomSeed': config.seeds.random_seed,
        'Quality': MEASURES,
    }
    write_row(config, scan, bundle, {'SyntheticScans': []}, origin)


def write_row(config, scan, bundle, facts, metadata):
    row = brainage_row(
        source=scan.uri,
        model=bundle.name,
        predicted_age=60.0,
        age=scan.age.years,
        status='ok',
    )
    write_brainage(
        table_path(config.execution.output_dir, scan),
        [row],
        models={bundle.name: {**model_facts(bundle), **facts}},
        metadata=metadata,
    )


def touch_files(config, scan, bundle, ledger):
    for path in (*ledger.images(scan).paths, *ledger.prediction(scan, bundle).paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{}' if path.suffix == '.json' else b'x')
