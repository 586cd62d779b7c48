"""What each region adds to an age that was told from tables: the map, and its pictures."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bids_brainage.bundles.bundle import Bundle
from bids_brainage.config import Config
from bids_brainage.dataset.measured import MeasuredScan
from bids_brainage.inference.result import ExplanationMap
from bids_brainage.names import derivative_path, side_file
from bids_brainage.outputs import write_json
from bids_brainage.preprocessing.normalise import brain_box
from bids_brainage.workflows.images import MAPS, kept_images, map_path


def write_map(
    config: Config, scan: MeasuredScan, bundle: Bundle, item: ExplanationMap, sources: list[str]
) -> None:
    """Write the map on the labels of the program, cut to the brain, and draw it.

    Parameters
    ----------
    config : Config
        The level of output says what stays.
    scan, bundle, item
        Visit with a label image, its model, and the map on that image.
    sources : list of str
        URIs of all files that it was made from.
    """
    from bids_brainage.interfaces.derivatives import write_image

    image = _cut(item)
    if MAPS in kept_images(config):
        target = map_path(config.execution.output_dir, scan, bundle.label, item.method)
        write_image(target, image.to_bytes())
        facts = {
            'Model': bundle.name,
            'WeightsSHA256': bundle.weights_sha256,
            'Method': item.method,
            'Units': item.unit,
            'Sources': sources,
        }
        write_json(side_file(target), facts)
    _draw(config, scan, bundle, item, image)


def _cut(item: ExplanationMap) -> Any:
    """Return the map as an image no larger than what is painted."""
    import nibabel as nib

    painted = item.data != 0
    if not painted.any():
        painted[0, 0, 0] = True  # an image has a voxel
    box, affine = brain_box(painted, item.affine, margin_mm=0.0)
    image = nib.Nifti1Image(item.data[box].astype(np.float32), affine)
    image.header.set_xyzt_units('mm')
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def _draw(
    config: Config, scan: MeasuredScan, bundle: Bundle, item: ExplanationMap, image: Any
) -> None:
    """Draw the map on the image that was segmented, or on the brain's outline without one."""
    import nibabel as nib

    from bids_brainage.pictures.figures import plot_saliency
    from bids_brainage.pictures.summary import plot_summary

    labels: Any = nib.load(str(scan.segmentation))
    brain = (np.asarray(labels.dataobj) > 0).astype(np.uint8)
    shown: dict[str, Any] = {'unit': str(item.unit), 'signed': True}
    with TemporaryDirectory() as folder:
        mask, values = Path(folder) / 'mask.nii', Path(folder) / 'map.nii'
        nib.save(nib.Nifti1Image(brain, labels.affine), mask)
        nib.save(image, values)
        head = scan.anatomy or mask
        plot_summary(head, mask, _figure(config, scan, bundle, 'summary'), values, **shown)
        if config.execution.level != 'minimal':
            out = _figure(config, scan, bundle, item.method)
            plot_saliency(head, values, out, mask=mask, **shown)


def _figure(config: Config, scan: MeasuredScan, bundle: Bundle, what: str) -> Path:
    named = {**scan.entities, 'model': bundle.label, 'desc': what}
    path = derivative_path({**named, 'suffix': 'T1w', 'extension': '.svg'}, 'figures')
    return config.execution.output_dir / path
