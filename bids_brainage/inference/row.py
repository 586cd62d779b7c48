"""The row and the facts of one prediction, for the table and its side file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.bundles.facts import model_facts
from bids_brainage.bundles.people import TRUE
from bids_brainage.inference.interval import corrected_age, in_training_range
from bids_brainage.inputs.volumes import by_title
from bids_brainage.outputs.tables import brainage_row
from bids_brainage.preprocessing.quality import prediction_flags

LEARNT_FROM = 'learnt_from'
"""Flag of rows of people from whom the model has learnt."""


def prediction_facts(prediction: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return what the side file says of a prediction and of its model.

    Parameters
    ----------
    prediction : mapping
        Content of ``prediction.json``.
    bundle : Bundle
    """
    kind = bundle.input['kind']
    return {
        **model_facts(bundle),
        'Device': prediction['device'],
        'Contributions': by_title(prediction['contributions'], kind),
        'BaseAge': prediction['base_age'],
        'ReferenceAge': prediction['reference_age'],
        'ContributionsFromMean': by_title(prediction['from_mean'], kind),
        'Beyond': list(by_title(dict.fromkeys(prediction['beyond'], 0.0), kind)),
        'Estimated': list(by_title(dict.fromkeys(prediction['estimated'], 0.0), kind)),
        'Note': prediction['note'],
        'SyntheticScans': prediction['synthetic_scans'],
    }


def flags_of(
    prediction: Mapping[str, Any],
    bundle: Bundle,
    age: float | None,
    *,
    estimated: bool = False,
    other_maps: bool = False,
    simulated: bool = False,
) -> list[str]:
    """Return the flags of a prediction, see `bids_brainage.preprocessing.quality`.

    Parameters
    ----------
    prediction : mapping
        Content of ``prediction.json``.
    bundle : Bundle
    age : float or None
        Chronological, years.
    estimated : bool
        Whether a measure that is not there was taken from the others and is to be flagged.
    other_maps : bool
        Whether the model has learnt from maps of another program.
    simulated : bool
        Whether nobody was scanned.
    """
    training = bundle.metadata['training']
    interval = prediction['interval']
    shares = [item['outside_brain'] for item in prediction['maps']]
    outside = [share for share in shares if share is not None]
    return prediction_flags(
        predicted_age=prediction['predicted_age'],
        age=age,
        age_range=(training['age_min'], training['age_max']),
        interval=tuple(interval[:2]) if interval else None,
        trained=bundle.status == 'trained',
        typicality=prediction['typicality'],
        outside_brain=max(outside) if outside else None,
        note=prediction['note'],
        beyond=bool(prediction['beyond']),
        estimated=estimated,
        other_maps=other_maps,
        simulated=simulated,
    )


def prediction_row(
    scan: dict[str, Any], prediction: dict[str, Any], bundle: Any, flags: list[str]
) -> dict[str, Any]:
    """Return the table row of a successful prediction.

    Parameters
    ----------
    scan : dict
        Columns that come from the dataset (``source``, ``age``...), and ``in_training``.
    prediction : dict
        Content of ``prediction.json``.
    bundle : Bundle
    flags : list of str

    Returns
    -------
    dict
        As `bids_brainage.outputs.tables.brainage_row` makes it; ages in years.
    """
    age = scan['age']
    training = bundle.metadata['training']
    limits = training['age_min'], training['age_max']
    interval = prediction['interval'] or (None, None, None)
    if scan.get('in_training') == TRUE:
        flags = [*flags, LEARNT_FROM]
    return brainage_row(
        **scan,
        model=bundle.name,
        model_version=bundle.version,
        predicted_age=prediction['predicted_age'],
        predicted_age_sd=prediction['predicted_age_sd'],
        interval_low=interval[0],
        interval_high=interval[1],
        interval_level=interval[2],
        predicted_age_corrected=corrected_age(
            prediction['predicted_age'], age, bundle.metadata['bias_correction']
        ),
        in_training_range=in_training_range(age, limits),
        qc_flag=';'.join(flags) or None,
        status='ok',
    )
