"""Run greedy on images in memory.

greedy (Yushkevich et al., https://greedy.readthedocs.io, Apache-2.0) works on SimpleITK images
in LPS+ millimetres; arrays are RAS+ everywhere else.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def run_greedy(
    command: str, results: tuple[str, ...], start: npt.NDArray[np.float64], **inputs: Any
) -> dict[str, Any]:
    """Run one greedy command from a starting affine (RAS+ mm) and return the named results."""
    from picsl_greedy import Greedy3D

    engine = Greedy3D()
    log = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, _quiet_stdout():
        # greedy 1.4 takes images from memory, but an initial affine only from a file
        np.savetxt(Path(folder) / 'start.mat', start)
        command = command.replace('START', str(Path(folder) / 'start.mat'))
        engine.execute(command, out=log, err=log, **inputs, **dict.fromkeys(results))
    return {name: engine[name] for name in results}


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Silence what compiled code writes straight to the process's standard output."""
    sys.stdout.flush()
    keep = os.dup(1)
    with open(os.devnull, 'w') as sink:  # noqa: PTH123 - a file descriptor is needed
        os.dup2(sink.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(keep, 1)
            os.close(keep)


def to_itk(data: np.ndarray, affine: npt.NDArray[np.float64]) -> Any:
    """Return a SimpleITK image (LPS+ world) of a RAS+ array."""
    import SimpleITK as sitk

    flip = np.diag([-1.0, -1.0, 1.0])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0), np.float64))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((flip @ affine[:3, 3]).tolist())
    image.SetDirection((flip @ affine[:3, :3] / spacing).ravel().tolist())
    return image


def from_itk(field: Any) -> np.ndarray:
    """Return a SimpleITK displacement field (LPS+ mm) as a RAS+ float32 array."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
    return np.ascontiguousarray(array * np.array([-1, -1, 1]), dtype=np.float32)
