"""What the workflow of a scan is called, which path it takes, and what its rows say."""

from __future__ import annotations

from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.people import in_training
from bids_brainage.config import Config
from bids_brainage.dataset.header import is_thick_axial
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.names import CBV_DESC, model_label
from bids_brainage.outputs.dataset import dataset_name
from bids_brainage.workflows.images import kept_images


def scan_workflow_name(scan: Scan) -> str:
    """Return the workflow name of a scan: letters, digits and underscores."""
    return scan.stem.replace('-', '_').replace('.', '_') + f'_{model_label(scan.suffix)}_wf'


def scan_columns(scan: Scan) -> dict[str, Any]:
    """Return the columns of a prediction row that the dataset gives."""
    return {
        'participant_id': f'sub-{scan.subject}',
        'session_id': f'ses-{scan.session}' if scan.session else None,
        'run': scan.run,
        'source': scan.uri,
        'modality': scan.suffix,
        'age': scan.age.years,
        'age_source': scan.age.source,
        'age_censored': scan.age.censored,
        'sex': scan.sex,
    }


def row_columns(config: Config, scan: Scan, bundle: Bundle) -> dict[str, Any]:
    """Return what is known of a row before the model has seen the scan."""
    name = dataset_name(config.execution.bids_dir)
    seen = in_training(bundle.metadata['training'], name, scan.subject)
    return {**scan_columns(scan), 'in_training': seen}


def takes_cbv(bundle: Bundle) -> bool:
    """Return whether a model sees the map of cerebral blood volume in place of the T1w image."""
    return bool(bundle.input.get('modality') == CBV_DESC)


def takes_native(scan: Scan, bundle: Bundle) -> bool:
    """Return whether a model takes a scan as it is: thick slices, without registration."""
    return kind_of(bundle.input).native and is_thick_axial(scan.path)


def needs_template(config: Config, scan: Scan, bundle: Bundle) -> bool:
    """Return whether a scan has to be registered to the template for a model.

    Where the level of output keeps no image in the template's space, models that look at the
    person's own space only do without.
    """
    if takes_native(scan, bundle):
        return False
    return 't1w' in kept_images(config) or not kind_of(bundle.input).in_own_space
