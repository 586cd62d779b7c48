"""Nipype interface that puts results into the output dataset under their final names."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nipype.interfaces.base import isdefined
from niworkflows.interfaces.bids import DerivativesDataSink as _NiworkflowsDataSink

from bids_brainage.dataset.header import unreadable
from bids_brainage.errors import UnusableImageError, WorkflowError
from bids_brainage.names import (
    derivative_path,
    long_names,
    parse_name,
    short_entities,
    side_file,
)
from bids_brainage.outputs.files import publish_file, write_bytes, write_json

_GZIP_LEVEL = 3
_EXTENSIONS = ('.nii.gz', '.nii', '.tsv', '.json', '.svg', '.html', '.h5', '.txt', '.mat')
_INTEGER_KINDS = {'mask': np.dtype('uint8'), 'dseg': np.dtype('int16')}
_ENTITIES = frozenset(long_names()) | frozenset(long_names().values())


class DerivativesDataSink(_NiworkflowsDataSink):
    """Write one file and its JSON side file under the name its entities give.

    As in niworkflows, entities come from ``source_file`` and are overridden by inputs of the
    entity's name (short or long: ``res`` or ``resolution``); every other input is metadata of
    the side file.  Different from niworkflows: names follow ``data/io_spec.json``,
    ``base_directory`` is the dataset itself, templates are not looked up, voxel values keep
    their bytes (masks and label images excepted, which become uint8 and int16), the gzip
    stream holds no time stamp, and a file that already holds this content is left alone.

    Examples
    --------
    >>> sink = DerivativesDataSink(desc='brain', suffix='mask', Type='Brain')
    >>> sink.inputs.desc
    'brain'
    """

    out_path_base = ''
    _config_entities = _ENTITIES | {'suffix', 'extension', 'datatype'}

    def _run_interface(self, runtime: Any) -> Any:
        base = self.inputs.base_directory
        root = Path(base if isdefined(base) else runtime.cwd)
        if len(self.inputs.in_file) != 1:
            raise WorkflowError(
                f'One file a sink: found {len(self.inputs.in_file)} in in_file; use a MapNode.'
            )
        source = Path(self.inputs.in_file[0])
        entities = self._entities(source)
        target = root / derivative_path(entities)
        metadata = self._side_metadata()
        changed = False
        if entities['extension'] in ('.nii', '.nii.gz'):
            payload, changed, zooms = image_payload(
                source,
                suffix=entities['suffix'],
                space=entities.get('space'),
                fix_header=self.inputs.check_hdr,
            )
            write_image(target, payload)
            if 'res' in entities:
                size = ' x '.join(f'{zoom:g}' for zoom in zooms)
                metadata.setdefault('Resolution', f'{size} mm')
        else:
            publish_file(source, target)
        self._results['out_file'] = [str(target)]
        self._results['compression'] = [target.name.endswith('.gz')]
        self._results['fixed_hdr'] = [changed]
        if metadata and entities['extension'] not in ('.json', '.svg', '.html'):
            side = side_file(target)
            write_json(side, {key: metadata[key] for key in sorted(metadata)})
            self._results['out_meta'] = [str(side)]
        return runtime

    def _entities(self, in_file: Path) -> dict[str, str]:
        """Combine the entities that all sources share with those given as inputs."""
        entities = common_entities(self.inputs.source_file)
        for name in self.inputs.dismiss_entities or []:
            entities.pop(next(iter(short_entities({name: 'x'}))), None)
        entities['extension'] = file_extension(in_file)
        if entities['extension'] == '.nii' and False not in (self.inputs.compress or [None]):
            entities['extension'] = '.nii.gz'
        given = {name: getattr(self.inputs, name) for name in sorted(self._config_entities)}
        entities.update(short_entities({k: v for k, v in given.items() if isdefined(v)}))
        return entities

    def _side_metadata(self) -> dict[str, Any]:
        """Merge metadata: ``meta_dict``, then the constructor's, then connected inputs."""
        base = self.inputs.meta_dict if isdefined(self.inputs.meta_dict) else {}
        connected = {
            name: getattr(self.inputs, name)
            for name in self.inputs.copyable_trait_names()
            if name not in self._static_traits
        }
        merged = {**base, **self._metadata, **connected}
        return {key: value for key, value in merged.items() if isdefined(value)}


def common_entities(sources: Sequence[str]) -> dict[str, str]:
    """Return the entities (by short key), suffix and data type that all sources share."""
    first, *others = [parse_name(source) for source in sources]
    return {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }


def file_extension(path: Path) -> str:
    """Return the extension of a file, ``.nii.gz`` as one.

    Raises
    ------
    WorkflowError
        The output dataset has no files of this kind.
    """
    for extension in _EXTENSIONS:
        if path.name.endswith(extension):
            return extension
    raise WorkflowError(f'{path} has none of the extensions {", ".join(_EXTENSIONS)}.')


def image_payload(
    path: Path, *, suffix: str, space: str | None, fix_header: bool = True
) -> tuple[bytes, bool, tuple[float, ...]]:
    """Return an image as the bytes of an uncompressed NIfTI file.

    Voxel bytes, scaling and the matrix of the image are those of the file; only the codes of
    the matrices (1 scanner, 4 MNI, 2 other spaces), the qform that repeats the matrix, and
    absent units (mm, and s for BOLD) are set.  Masks and label images of another type are
    rounded to uint8 and int16.

    Returns
    -------
    tuple
        The bytes, whether they differ from those of the file, and the voxel size in mm.

    Raises
    ------
    UnusableImageError
        Not a NIfTI file.
    """
    try:
        image = nb.load(path)
    except unreadable() as error:
        raise UnusableImageError(f'{path} cannot be read as an image: {error}.') from error
    if not isinstance(image, nb.Nifti1Image):
        raise UnusableImageError(f'{path} is a {type(image).__name__}, expected NIfTI.')
    wanted = _INTEGER_KINDS.get(suffix)
    if wanted is not None and image.get_data_dtype() != wanted:
        rounded = np.rint(np.asanyarray(image.dataobj)).astype(wanted)
        image = type(image)(rounded, image.affine, image.header)
        image.set_data_dtype(wanted)
        original, content = b'', image.to_bytes()
    else:
        try:
            original = content = _uncompressed(path)
        except (OSError, EOFError, zlib.error) as error:
            raise UnusableImageError(f'{path} is cut short or damaged: {error}.') from error
    if fix_header:
        content = _with_codes(content, image, suffix, space)
    return content, content != original, tuple(map(float, image.header.get_zooms()[:3]))


def write_image(path: Path, payload: bytes) -> bool:
    """Write NIfTI bytes, compressed if the name ends in ``.gz``; keep an equal file.

    Returns
    -------
    bool
        True if the file was written.
    """
    if not path.name.endswith('.gz'):
        return write_bytes(path, payload)
    try:
        if path.is_file() and _uncompressed(path) == payload:
            return False
    except (OSError, EOFError, zlib.error):
        pass  # a damaged file is replaced
    return write_bytes(path, gzip.compress(payload, compresslevel=_GZIP_LEVEL, mtime=0))


def _with_codes(content: bytes, image: nb.Nifti1Image, suffix: str, space: str | None) -> bytes:
    """Set codes and units in the header bytes; everything after them stays."""
    kind = type(image.header)
    size = kind.template_dtype.itemsize
    header = kind(content[:size], check=False)
    code = 1 if space is None or space == 'T1w' else 4 if space.startswith('MNI') else 2
    space_unit, time_unit = header.get_xyzt_units()
    units = (
        'mm' if space_unit == 'unknown' else space_unit,
        'sec' if suffix == 'bold' and time_unit == 'unknown' else time_unit,
    )
    codes = (int(header['qform_code']), int(header['sform_code']))
    if codes == (code, code) and units == (space_unit, time_unit):
        return content
    header.set_sform(image.affine, code)
    header.set_qform(image.affine, code)
    header.set_xyzt_units(*units)
    return bytes(header.binaryblock) + content[size:]


def _uncompressed(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b'\x1f\x8b' else raw
