"""The template brain: found through TemplateFlow, or laid out from nilearn's package.

Every machine with this package's requirements can build the default template without network:
nilearn carries the ICBM 2009a nonlinear symmetric brain (Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033), which TemplateFlow calls ``MNI152NLin2009aSym``.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bids_brainage.errors import MissingInputError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_SPACE = 'MNI152NLin2009aSym'
RESOLUTIONS = (1, 2)
BRAIN = 0.2
"""The template is brain above this share of its brightest voxel."""

NOTICE = (
    'Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal '
    'Neurological Institute, McGill University. Permission to use, copy, modify, and distribute '
    'this software and its documentation for any purpose and without fee is hereby granted, '
    'provided that the above copyright notice appear in all copies.\n'
)


@dataclass(frozen=True)
class Template:
    """Files of one template at one resolution.

    Attributes
    ----------
    space : str
        TemplateFlow label.
    resolution : int
        Isotropic voxel size in mm.
    t1w, mask, gm : Path
        Skull-stripped T1w, brain mask, grey-matter probability.
    """

    space: str
    resolution: int
    t1w: Path
    mask: Path
    gm: Path


def find_template(root: Path, space: str = DEFAULT_SPACE, resolution: int = 1) -> Template:
    """Find a template in a TemplateFlow archive on disk.

    Parameters
    ----------
    root : Path
        TemplateFlow home (an archive with ``tpl-*`` folders).
    space : str
        TemplateFlow label.
    resolution : int
        Voxel size in mm.

    Returns
    -------
    Template

    Raises
    ------
    MissingInputError
        If a file is absent or empty: nothing is downloaded.
    """
    from templateflow.client import TemplateFlowClient

    # in a folder without templates the client would lay out a skeleton of all of them
    there = (root / f'tpl-{space}').is_dir()
    archive = TemplateFlowClient(root=root) if there else None
    queries: dict[str, dict[str, str]] = {
        't1w': {'desc': 'brain', 'suffix': 'T1w'},
        'mask': {'desc': 'brain', 'suffix': 'mask'},
        'gm': {'label': 'GM', 'suffix': 'probseg'},
    }
    found: dict[str, Path] = {}
    missing = []
    for role, query in queries.items():
        # `ls` looks at the archive on disk; `get` would try to download an empty file
        listed = archive.ls(space, resolution=resolution, **query) if archive else []
        hits = [Path(p) for p in listed]
        hits = [p for p in hits if p.name.endswith('.nii.gz') and p.stat().st_size > 0]
        if hits:
            found[role] = hits[0]
        else:
            missing.append(', '.join(f'{key} {value}' for key, value in query.items()))
    if missing:
        raise MissingInputError(
            f'template {space} at {resolution} mm is not complete in {root}: missing or empty are '
            f'{"; ".join(missing)}. Unset TEMPLATEFLOW_HOME to let the package lay out its own '
            'copy, or run `python -m bids_brainage.preprocessing.template FOLDER` and point '
            'TEMPLATEFLOW_HOME to that folder.'
        )
    return Template(space=space, resolution=resolution, **found)


def templateflow_files(space: str, download: bool, **query: Any) -> list[Path]:
    """Return the images of a query that are on this machine; fetch them first if allowed.

    Parameters
    ----------
    space : str
        TemplateFlow label.
    download : bool
        Whether TemplateFlow may fetch what is absent.
    **query
        Entities by their long names.
    """
    import templateflow.api

    def there() -> list[Path]:
        found = templateflow.api.ls(space, extension='.nii.gz', **query)
        return [Path(p) for p in found if Path(p).is_file() and Path(p).stat().st_size > 0]

    if download and not there():
        # without network the caller says what is missing
        with suppress(OSError, RuntimeError, KeyError):
            templateflow.api.get(space, extension='.nii.gz', raise_empty=False, **query)
    return there()


def install_packaged_template(root: Path) -> Path:
    """Lay out nilearn's template as a TemplateFlow archive.

    Parameters
    ----------
    root : Path
        Archive to create or complete; existing complete copies are kept.

    Returns
    -------
    Path
        ``root``.
    """
    target = root / f'tpl-{DEFAULT_SPACE}'
    if target.is_dir():
        return root
    root.mkdir(parents=True, exist_ok=True)
    # TemplateFlow passes hidden folders over: no other job sees files that are about to vanish
    with tempfile.TemporaryDirectory(dir=root, prefix='.') as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        _write_layout(folder)
        try:
            folder.rename(target)
        except OSError:  # another job finished first
            if not target.is_dir():
                raise
    os.chmod(target, 0o755)  # noqa: PTH101 - readable for every user of a shared cache
    return root


def _write_layout(folder: Path) -> None:
    import nibabel as nib
    import numpy as np

    brain, fine = _packaged_map('t1')
    grey, _ = _packaged_map('gm')
    resolutions = {}
    for resolution in RESOLUTIONS:
        every = (slice(None, None, resolution),) * 3
        t1w, gm, affine = brain[every], grey[every], fine @ np.diag([resolution] * 3 + [1])
        stem = f'tpl-{DEFAULT_SPACE}_res-{resolution}'
        for suffix, data in (
            ('desc-brain_T1w', t1w),
            ('desc-brain_mask', (t1w > BRAIN).astype(np.uint8)),
            ('label-GM_probseg', gm),
        ):
            nib.save(nib.Nifti1Image(data, affine), folder / f'{stem}_{suffix}.nii.gz')
        resolutions[str(resolution)] = {
            'origin': [float(v) for v in affine[:3, 3]],
            'shape': [int(n) for n in t1w.shape],
            'zooms': [float(resolution)] * 3,
        }
    description = {
        'Name': 'ICBM 152 Nonlinear symmetric template version 2009a',
        'Identifier': DEFAULT_SPACE,
        'BIDSVersion': '1.11.1',
        'Authors': ['Fonov V', 'Evans AC', 'Botteron K', 'Almli CR', 'McKinstry RC', 'Collins DL'],
        'License': NOTICE.strip(),
        'ReferencesAndLinks': ['https://doi.org/10.1016/j.neuroimage.2010.07.033'],
        'TemplateFlowVersion': '1.0.0',
        'res': resolutions,
    }
    (folder / 'template_description.json').write_text(json.dumps(description, indent=2), 'utf-8')
    (folder / 'LICENSE').write_text(NOTICE, 'utf-8')
    changes = '1.0.0 Laid out from the images packaged in nilearn.\n'
    (folder / 'CHANGES').write_text(changes, 'utf-8')


def _packaged_map(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a map of nilearn's package, 0 to 1 in voxels of 1 mm, and its affine.

    It is what the loaders of `nilearn.datasets` give, whose cubic splines of larger voxels go
    through those of 1 mm.  They take longer than everything else before the first step of a run.
    """
    import nibabel as nib
    import numpy as np

    file = f'datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz'
    image = cast('nib.Nifti1Image', nib.load(str(files('nilearn').joinpath(file))))
    data = np.asarray(image.dataobj, np.float32)
    return data / data.max(), image.affine


def main(argv: list[str] | None = None) -> int:
    """Lay out the template in a folder given on the command line."""
    import argparse

    parser = argparse.ArgumentParser(
        prog='python -m bids_brainage.preprocessing.template',
        description='Lay out the packaged template as a TemplateFlow archive.',
    )
    parser.add_argument('folder', type=Path)
    install_packaged_template(parser.parse_args(argv).folder)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
