"""What the workflow of a scan is called, which path it takes, and what its rows say."""

from __future__ import annotations

from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.dataset.header import is_thick_axial
from bids_brainage.dataset.scan import Scan
from bids_brainage.names import CBV_DESC, model_label


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


def takes_cbv(bundle: Bundle) -> bool:
    """Return whether a model sees the map of cerebral blood volume in place of the T1w image."""
    return bool(bundle.input.get('modality') == CBV_DESC)


def takes_connectivity(bundle: Bundle) -> bool:
    """Return whether a model takes the connectivity of the session beside the T1w image."""
    return bool(bundle.input['kind'] == 't1w_connectivity')


def takes_native(scan: Scan, bundle: Bundle) -> bool:
    """Return whether a model takes a scan as it is: thick slices, without registration."""
    return bool(bundle.input['kind'] == 't1w_clinical') and is_thick_axial(scan.path)
