"""Command of the generator node: a map of cerebral blood volume (CBV) of one T1w scan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bids_brainage.errors import BrainAgeError


def generate(
    weights: Path,
    t1w: np.ndarray,
    mask: np.ndarray,
    *,
    device: str = 'auto',
    threads: int = 1,
) -> np.ndarray:
    """Generate the map of one scan with the architecture that the weights name.

    Parameters
    ----------
    weights : Path
        File of `bids_brainage.inference.aicbv.save_generator`.
    t1w : ndarray, shape (X, Y, Z)
        Bias-corrected, template space, 1 mm, RAS+.
    mask : ndarray of bool, shape (X, Y, Z)
        Brain.
    device : str
        As for `bids_brainage.inference.predict.predict`.
    threads : int
        CPU threads.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In the unit of the training maps, 0 outside the brain.
    """
    import torch

    from bids_brainage.inference.aicbv import load_generator
    from bids_brainage.models.devices import choose_device

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model: Any = load_generator(weights, device=choose_device(device))
    return synthesise(model, t1w, mask)


def synthesise(model: Any, t1w: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Generate a map with a generator of either architecture; see `generate`."""
    from bids_brainage.inference.aicbv import synthesise_aicbv
    from bids_brainage.inference.aicbv_slices import synthesise_uptake
    from bids_brainage.inputs.intensity import scale_by_top_percent

    brain = t1w * mask
    if model.by_slices:
        return synthesise_uptake(brain, mask, model)
    return synthesise_aicbv(scale_by_top_percent(brain), mask, model)


def main(argv: list[str] | None = None) -> int:
    """Generate the map of one scan and write it."""
    import nibabel as nib

    parser = argparse.ArgumentParser(prog='python -m bids_brainage.inference.generate')
    for name in ('weights', 't1w', 'mask', 'out_file'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args(argv)
    image: Any = nib.load(options.t1w)
    mask: Any = nib.load(options.mask)
    try:
        made = generate(
            options.weights,
            np.asarray(image.dataobj, np.float32),
            np.asarray(mask.dataobj) > 0,
            device=options.device,
            threads=options.threads,
        )
    except BrainAgeError as error:
        sys.stderr.write(f'{type(error).__name__}: {error}\n')
        return error.exit_code
    nib.save(nib.Nifti1Image(made.astype(np.float32), image.affine), options.out_file)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
