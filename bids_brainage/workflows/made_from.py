"""What each product of a run is made from, for its side file: all but the hash of the input.

The steps that make a product put this into its side file, with the hash of what they read, and
the ledger of a run compares it with what would be put there now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.scan import Scan
from bids_brainage.inputs.kinds import kind_of
from bids_brainage.outputs.provenance import config_hash, sha256_file
from bids_brainage.segmentation.weights import card
from bids_brainage.workflows.naming import takes_cbv, takes_native

if TYPE_CHECKING:
    from bids_brainage.dataset.aicbv import CbvSource
    from bids_brainage.inputs.harmonise import SiteShift
    from bids_brainage.outputs.connectivity import Connectivity

HARMONISED = 'Harmonisation'
"""Key of what a shift was learnt from."""


def of_mask(config: Config) -> dict[str, Any]:
    """Return what the brain mask of a scan is made from."""
    return {'ConfigurationHash': config_hash(config.workflow.image_options())}


def of_images(config: Config) -> dict[str, Any]:
    """Return what the preprocessed images and region volumes of a scan are made from."""
    return {**of_mask(config), 'SegmentationSHA256': card()['weights_sha256']}


def of_cbv(config: Config, source: CbvSource) -> dict[str, Any]:
    """Return what a map of cerebral blood volume is made from."""
    return {**of_mask(config), 'SourceSHA256': source.sha256}


def of_connectivity(config: Config, source_uri: str) -> dict[str, Any]:
    """Return what the connectivity of a functional run is made from."""
    return {**of_mask(config), 'Source': source_uri}


def of_prediction(
    config: Config,
    scan: Scan,
    bundle: Bundle,
    cbv: CbvSource | None = None,
    connectivity: Connectivity | None = None,
    shift: SiteShift | None = None,
) -> dict[str, Any]:
    """Return what the prediction of a model is made from.

    Parameters
    ----------
    config : Config
    scan : Scan
    bundle : Bundle
    cbv : CbvSource or None
        For models that take a map of blood volume.
    connectivity : Connectivity or None
        For models that take connectivity.
    shift : SiteShift or None
        What brings tables of other programs to the scale of the model.

    Returns
    -------
    dict
        The age of the person is in it only where the explanation compares with people of that
        age; age and sex in the rows are brought up to date without a prediction.
    """
    metadata = bundle.metadata
    facts = {
        **of_mask(config),
        'RandomSeed': config.seeds.random_seed,
        'BundleHash': bundle_hash(
            bundle.weights_sha256,
            metadata['config_hash'],
            metadata['conformal'],
            metadata['bias_correction'],
        ),
        'SyntheticScans': is_sliced(config, scan, bundle),
    }
    if takes_cbv(bundle):
        facts['CBVSHA256'] = cbv.sha256 if cbv else None
    if connectivity is not None:
        path = connectivity.path
        facts['ConnectivitySHA256'] = sha256_file(path) if path else None
    if shift is not None:
        facts[HARMONISED] = shift.facts()
    curves = metadata['training'].get('reference_curves')
    if curves and scan.age.years is not None:
        facts['ReferenceAge'] = min(max(scan.age.years, curves['age'][0]), curves['age'][-1])
    return facts


def bundle_hash(
    weights: str | None,
    declared: str | None,
    conformal: Mapping[str, Any] | None,
    bias: Mapping[str, Any] | None,
) -> str:
    """Return one hash of all that a bundle adds to a prediction.

    Parameters
    ----------
    weights, declared : str or None
        Hashes of the weights, and of what the metadata declare of input and architecture.
    conformal, bias : mapping or None
        Calibrations of the interval and of the age.
    """
    return config_hash(
        {'weights': weights, 'declared': declared, 'conformal': conformal, 'bias': bias}
    )


def is_sliced(config: Config, scan: Scan, bundle: Bundle) -> bool:
    """Return whether a scan is predicted as the thick-slice scans that it contains."""
    clinical = kind_of(bundle.input).native
    return config.workflow.synthetic_slices and clinical and not takes_native(scan, bundle)
