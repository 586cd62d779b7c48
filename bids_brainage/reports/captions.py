"""Titles of the pictures of a page, and what to look for in them."""

from __future__ import annotations

from bids_brainage.reports import wording
from bids_brainage.reports.records import Picture, ScanRecord, picture_model

_CAPTIONS = {
    'mask': (
        'Brain mask',
        'The line should follow the edge of the brain and leave skull and eyes outside.',
    ),
    'registration': (
        'Registration to the template',
        'Template and scan in turn. Ventricles and cortex should stay in place; only fine '
        'detail should change.',
    ),
    'segmentation': (
        'Tissue map',
        'Grey matter should follow the cortex, white matter lie below it, and fluid fill '
        'ventricles and sulci.',
    ),
    'regions': (
        'Regions',
        'Each colour is one region that the segmentation network found. Borders should follow '
        'ventricles, deep nuclei and the edge of white matter, the same on both sides.',
    ),
    'coregistration': (
        'Functional image on the T1w image',
        'The outline of the T1w brain should follow the edge of the functional image.',
    ),
    'carpet': (
        'Signal over time',
        'Each row is one voxel, each column one time point. Stripes at the same time in all '
        'tissues are motion or breathing; shaded volumes were left out.',
    ),
    'connectivity': (
        'Connectivity',
        'Correlation between the cleaned time series of regions. Regions of one network should '
        'correlate: warm blocks along the diagonal.',
    ),
}
_MAPS = {
    'gradcam': 'Grad-CAM',
    'guidedbackprop': 'guided backpropagation',
    'attention': 'attention',
}


def caption(picture: Picture, scan: ScanRecord) -> tuple[str, str]:
    """Give the title of a picture and what to look for."""
    if scan.failed and picture.what == 'mask':
        return (
            'The image, and the brain mask if there is one',
            'Processing stopped here. The line should follow the edge of the brain: a wrong one, '
            'or an image that is cut, turned or of another kind, shows why.',
        )
    if picture.model is None:
        return _CAPTIONS.get(picture.what, (picture.what.capitalize(), ''))
    model = picture_model(picture, scan)
    if picture.what.startswith('contribution'):
        result = next((r for r in scan.results if r.model == model), None)
        meaning = 'Orange places raise the predicted age, blue places lower it.'
        if result is not None and result.reference_age is not None:
            meaning = (
                f'Orange regions look older, blue ones younger than {wording.peers(scan, result)}.'
            )
        return (
            f'Contributions to the predicted age: {model}',
            f'{meaning} On the person’s own brain.',
        )
    if picture.what == 'nodes':
        return (
            f'Which connections mattered: regions by importance for {model}',
            'Bright regions had most of the model’s attention among the regions of connectivity. '
            'The map shows what the model used, not disease. On the person’s own brain.',
        )
    return (
        f'What the model looked at: {_MAPS.get(picture.what, picture.what)} of {model}',
        'Bright places mattered most for the prediction; they should lie inside the brain. The '
        'map shows what the model used, not disease. On the person’s own brain.',
    )


def summary_caption(contributions: bool) -> str:
    """Say what the map on the first page shows: contributions of regions, or saliency."""
    colours = 'orange looks older, blue younger' if contributions else 'bright mattered most'
    return f'The slices in which the map of the model is strongest: {colours}.'
