"""Find the modulated maps of grey matter that CAT12 made of T1w images, and its ratings.

CAT12 writes ``mri/mwp1<name>.nii`` and ``report/cat_<name>.xml`` for an image ``<name>.nii``,
beside the image or in a folder of its own.  Its rating of an image is a mark, 0.5 for the best
(Dahnke et al., the quality assessment of CAT12; doi:10.1093/gigascience/giae049).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from bids_brainage.dataset.derivatives import has_content
from bids_brainage.dataset.scan import GreyMatter, Scan

_MAP = 'mwp1'


def use_cat12(
    scans: Sequence[Scan], name: str, root: Path
) -> tuple[tuple[Scan, ...], tuple[str, ...]]:
    """Give T1w images the map of grey matter that CAT12 made of them.

    Parameters
    ----------
    scans : sequence of Scan
        T1w images of the dataset.
    name : str
        Name of the derivatives in URIs.
    root : Path
        Folder that holds CAT12's folders ``mri`` and ``report``, at any depth.

    Returns
    -------
    scans : tuple of Scan
        The same images in the same order; one for which there is no map stays as it is.
    notes : tuple of str
        Why our own map is taken, and which map has no rating.
    """
    maps: dict[str, list[Path]] = {}
    for path in sorted(root.rglob(f'{_MAP}*.nii*')):
        maps.setdefault(path.name.removeprefix(_MAP).partition('.')[0], []).append(path)
    chosen, notes = [], []
    for scan in scans:
        own = scan.path.name.partition('.')[0]
        found = maps.get(own, [])
        if len(found) != 1 or not has_content(found[0]):
            notes.append(f'{scan.relative}: {_reason(own, root, found)}; our own map is taken')
            chosen.append(scan)
            continue
        report = _report(found[0], own)
        if report is None:
            notes.append(
                f'{scan.relative}: expected report/cat_{own}.xml beside the folder of '
                f'{found[0]}, found none; the rating of the image is unknown'
            )
        files = (found[0], *([] if report is None else [report]))
        uris = tuple(f'bids:{name}:{path.relative_to(root).as_posix()}' for path in files)
        chosen.append(replace(scan, grey_matter=GreyMatter(found[0], report, uris)))
    return tuple(chosen), tuple(notes)


def _reason(own: str, root: Path, found: Sequence[Path]) -> str:
    """Say why there is no map to take."""
    expected = f'expected one mri/{_MAP}{own}.nii in {root}'
    if not found:
        return f'{expected}, found none'
    if len(found) > 1:
        return f'{expected}, found {", ".join(str(p.relative_to(root)) for p in found)}'
    return f'{found[0]} is empty or a link to content that is not here; fetch it'


def _report(image: Path, own: str) -> Path | None:
    """Return the report of a map: in CAT12's folder for reports, or beside the map."""
    name = f'cat_{own}.xml'
    places = (image.parent.parent / 'report' / name, image.with_name(name))
    return next((path for path in places if has_content(path)), None)


def quality_percent(report: Path) -> float | None:
    """Return CAT12's rating of an image in percent; None if the report has none.

    The weighted overall rating (IQR) as a mark from 0.5 to 10.5 is 100 to 0 percent:
    ``clip(105 - 10 mark, 0, 100)``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, 'cat_sub-01_T1w.xml')
    ...     _ = path.write_text('<S><qualityratings><IQR>2.5</IQR></qualityratings></S>')
    ...     quality_percent(path)
    80.0
    """
    try:
        text = ElementTree.parse(report).findtext('.//qualityratings/IQR')
        mark = float(text or 'nan')
    except (ElementTree.ParseError, ValueError, OSError):
        return None
    return None if mark != mark else min(max(105.0 - 10.0 * mark, 0.0), 100.0)
