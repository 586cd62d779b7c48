"""What a model says about a scan, and how it is kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.preprocessing.transforms import grid_points, sample_image

if TYPE_CHECKING:
    from bids_brainage.inference.multimodal import FusionFacts


@dataclass(frozen=True)
class ExplanationMap:
    """A map that explains one prediction.

    Attributes
    ----------
    method : str
        ``'contribution'``, ``'gradcam'``, ``'guided_backprop'``, ``'attention'`` (with the
        stream's name after a hyphen where there are several).
    data : ndarray of float32, shape (X, Y, Z)
    affine : ndarray, shape (4, 4)
        Voxel index → RAS+ mm of ``space``.
    space : str
        TemplateFlow label, or ``'T1w'``.
    unit : str
        ``'year'`` for contributions, ``'arbitrary'`` else.
    sanity : float or None
        Rank correlation with the map of the same network with shuffled weights.
    regional : bool
        One value for each region: between regions there is nothing to interpolate.
    aligned : bool
        In template space by the affine alone, with the proportions of the person's own brain.
    """

    method: str
    data: np.ndarray
    affine: np.ndarray
    space: str
    unit: str
    sanity: float | None
    regional: bool = False
    aligned: bool = False


@dataclass(frozen=True)
class Prediction:
    """What one model says about one scan.

    Attributes
    ----------
    age : float
        Predicted age in years.
    interval : tuple or None
        Lower and upper limit in years, nominal coverage.
    contributions : dict
        Feature → years, for models that add up; empty else.  Positive looks older: than people of
        ``reference_age``, or than the mean of the training people where there is none.
    base_age : float or None
        What the model says of people of ``reference_age`` on average, years; the contributions
        and it add up to ``age``.  None for models without `reference_age`.
    reference_age : float or None
        The age whose people the contributions compare with, years.
    from_mean : dict
        Feature → years, as ``contributions``, but always than the mean of the training people;
        empty for models without `reference_age`, whose contributions are these.
    estimated : tuple of str
        Features that the image does not have and that the others suggest.
    beyond : tuple of str
        Features outside the range that the model knows.
    maps : tuple of ExplanationMap
    typicality : float or None
        Quantile (0 to 1) of the scan's distance from the training people.
    device : str
        Where the model ran.
    seconds : float
        Wall time of loading and running the model.
    note : str
        What was missing, or empty.
    fusion : FusionFacts or None
        For models of structure and connectivity: how they were put together.
    sd : float or None
        Standard deviation (n - 1) over the members of an ensemble, or over the synthetic scans,
        years; None for one model and one scan.
    n_scans : int
        Synthetic scans of which the age is the mean; 1 without them.
    """

    age: float
    interval: tuple[float, float, float] | None
    contributions: dict[str, float] = field(default_factory=dict)
    base_age: float | None = None
    reference_age: float | None = None
    from_mean: dict[str, float] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()
    estimated: tuple[str, ...] = ()
    maps: tuple[ExplanationMap, ...] = ()
    typicality: float | None = None
    device: str = 'cpu'
    seconds: float = 0.0
    note: str = ''
    sd: float | None = None
    n_scans: int = 1
    fusion: FusionFacts | None = None


def fraction_outside(explanation: ExplanationMap, mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the share (0 to 1) of a map's absolute sum that lies outside the brain.

    Parameters
    ----------
    explanation : ExplanationMap
    mask, affine
        Brain mask in the space of the map.
    """
    points = grid_points(explanation.data.shape, explanation.affine)
    inside = sample_image(mask.astype(np.float32), affine, points).reshape(explanation.data.shape)
    strength = np.abs(explanation.data)
    total = float(strength.sum())
    return float((strength * (inside < 0.5)).sum() / total) if total > 0 else 0.0


def save_prediction(
    prediction: Prediction, folder: Path, masks: dict[str, tuple[np.ndarray, np.ndarray]]
) -> Path:
    """Write ``prediction.json`` and the maps as NIfTI into a folder.

    Parameters
    ----------
    prediction : Prediction
    folder : Path
    masks : dict
        Space → brain mask and affine, to say how much of each map lies outside the brain.

    Returns
    -------
    Path
        The JSON file.
    """
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    maps = []
    for item in prediction.maps:
        path = folder / f'{item.method}.nii.gz'
        nib.save(nib.Nifti1Image(item.data.astype(np.float32), item.affine), path)
        outside = None
        if item.space in masks:
            outside = fraction_outside(item, *masks[item.space])
        maps.append(
            {
                'method': item.method,
                'file': path.name,
                'space': item.space,
                'unit': item.unit,
                'sanity': item.sanity,
                'regional': item.regional,
                'aligned': item.aligned,
                'outside_brain': outside,
            }
        )
    content = content_of(prediction, maps)
    target = folder / 'prediction.json'
    target.write_text(json.dumps(content, indent=1), 'utf-8')
    return target


def content_of(prediction: Prediction, maps: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return what ``prediction.json`` says of a prediction and its maps."""
    return {
        'predicted_age': prediction.age,
        'predicted_age_sd': prediction.sd,
        'interval': prediction.interval,
        'contributions': prediction.contributions,
        'base_age': prediction.base_age,
        'reference_age': prediction.reference_age,
        'from_mean': prediction.from_mean,
        'beyond': prediction.beyond,
        'estimated': prediction.estimated,
        'typicality': prediction.typicality,
        'device': prediction.device,
        'seconds': round(prediction.seconds, 3),
        'note': prediction.note,
        'synthetic_scans': prediction.n_scans if prediction.n_scans > 1 else None,
        'fusion': asdict(prediction.fusion) if prediction.fusion else None,
        'maps': list(maps),
    }
