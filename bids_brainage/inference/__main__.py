"""Command of the inference node: its own process, so that a GPU never lives in the parent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bids_brainage.errors import BrainAgeError
from bids_brainage.inputs.kinds import CONNECTIVITY, KINDS

ROLES = tuple(
    dict.fromkeys(
        role
        for kind in KINDS.values()
        if kind.gives_age and not kind.elsewhere
        for role in (*kind.roles, CONNECTIVITY, 'mask', 'mask_native')
    )
)
"""Files that a model may be given; the masks say how much of a map lies outside the brain."""


def main(argv: list[str] | None = None) -> int:
    """Predict one scan with one bundle and write the result into a folder."""
    parser = argparse.ArgumentParser(prog='python -m bids_brainage.inference')
    parser.add_argument('bundle', type=Path)
    parser.add_argument('out_dir', type=Path)
    for role in ROLES:
        parser.add_argument(f'--{role.replace("_", "-")}', type=Path, dest=role)
    parser.add_argument('--atlas', help='regions of the connectivity')
    parser.add_argument('--atlas-table', type=Path)
    parser.add_argument('--synthetic-slices', action='store_true')
    parser.add_argument('--reference-age', type=float, help='years; explain relative to it')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--saliency', nargs='*', default=None)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args(argv)
    try:
        _run(options)
    except BrainAgeError as error:
        sys.stderr.write(f'{type(error).__name__}: {error}\n')
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    import nibabel as nib
    import numpy as np

    from bids_brainage.bundles.bundle import load_bundle
    from bids_brainage.inference.predict import predict
    from bids_brainage.inference.result import save_prediction
    from bids_brainage.preprocessing.bold.atlases import resolve_atlas
    from bids_brainage.preprocessing.template import DEFAULT_SPACE

    files = {role: getattr(options, role) for role in ROLES if getattr(options, role)}
    bundle = load_bundle(options.bundle)
    prediction = predict(
        bundle,
        files,
        device=options.device,
        saliency=options.saliency,
        seed=options.seed,
        threads=options.threads,
        synthetic_slices=options.synthetic_slices,
        reference_age=options.reference_age,
        atlas=resolve_atlas(options.atlas, table=options.atlas_table) if options.atlas else None,
    )
    masks = {}
    for role, space in (('mask', DEFAULT_SPACE), ('mask_native', 'T1w')):
        if role in files:
            image = nib.as_closest_canonical(nib.load(files[role]))
            masks[space] = (np.asarray(image.dataobj) > 0, np.asarray(image.affine))
    save_prediction(prediction, options.out_dir, masks)


if __name__ == '__main__':
    raise SystemExit(main())
