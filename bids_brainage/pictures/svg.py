"""Write SVG by hand: pictures with embedded rasters, and a filter for foreign SVG.

Nothing here uses element ids, so several pictures can stand in one page.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from bids_brainage.errors import OutputError

SVG_NAMESPACE = 'http://www.w3.org/2000/svg'
_XLINK = '{http://www.w3.org/1999/xlink}href'
_ALLOWED = frozenset(
    (
        *('svg', 'g', 'image', 'path', 'rect', 'line', 'polyline', 'circle'),
        *('title', 'desc', 'text', 'tspan', 'style'),
    )
)
#: largest size of all rasters of one picture together, bytes before base64
RASTER_BUDGET = 300_000
FONT = 'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif"'


def tag(name: str, content: str | None = None, **attributes: object) -> str:
    """Write one element; ``_`` in attribute names becomes ``-``, ``class_`` is ``class``.

    Attributes that are None are left out; `content` is taken as it is (escape text first).
    """
    written = ''.join(
        f' {key.rstrip("_").replace("_", "-")}={quoteattr(str(value))}'
        for key, value in attributes.items()
        if value is not None
    )
    return f'<{name}{written}/>' if content is None else f'<{name}{written}>{content}</{name}>'


def text(content: str, x: float | str, y: float | str, **attributes: object) -> str:
    """Write a text element with escaped content."""
    return tag('text', escape(content), x=x, y=y, **attributes)


def document(width: int, height: int, title: str, description: str, body: str) -> str:
    """Wrap the body in a stand-alone SVG document with an accessible name.

    Parameters
    ----------
    width, height : int
        Size of the drawing, user units (pixels).
    title, description : str
        Read aloud by screen readers.
    body : str
        SVG elements.

    Returns
    -------
    str
    """
    head = tag('title', escape(title)) + tag('desc', escape(description))
    return (
        f'<svg xmlns="{SVG_NAMESPACE}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" {FONT}>{head}{body}</svg>\n'
    )


def encode_rasters(rasters: list[NDArray[np.uint8]], budget: int = RASTER_BUDGET) -> list[str]:
    """Encode rasters as JPEG data URIs, as good as the size budget allows.

    Parameters
    ----------
    rasters : list of ndarray, shape (height, width) or (height, width, 3)
        Grey or RGB, 0 to 255.
    budget : int
        Bytes that all of them may take together, before base64.

    Returns
    -------
    list of str
    """
    from PIL import Image

    encoded: list[bytes] = []
    for quality in (88, 80, 70, 55, 40):
        encoded = []
        for raster in rasters:
            stream = io.BytesIO()
            Image.fromarray(raster).save(
                stream, 'JPEG', quality=quality, subsampling=0, optimize=True
            )
            encoded.append(stream.getvalue())
        if sum(map(len, encoded)) <= budget:
            break
    return [f'data:image/jpeg;base64,{base64.b64encode(data).decode()}' for data in encoded]


def image(uri: str, x: float, y: float, width: float, height: float) -> str:
    """Place an embedded raster."""
    return tag('image', href=uri, x=x, y=y, width=width, height=height, preserveAspectRatio='none')


def sanitise(markup: str, name: str = 'figure') -> str:
    """Make an SVG file safe to stand inside an HTML page.

    Only drawing elements are let through; scripts, foreign objects, event attributes, and
    every reference except embedded images are refused.

    Parameters
    ----------
    markup : str
        Content of an SVG file.
    name : str
        Named in the error.

    Returns
    -------
    str
        The ``svg`` element without XML declaration; its size is left to the page.

    Raises
    ------
    OutputError
        If the file is not well formed or holds anything else than a drawing.
    """
    advice = 'Delete the file and run the participant again.'
    if re.search(r'<!(DOCTYPE|ENTITY)', markup, re.IGNORECASE):
        raise OutputError(f'{name}: expected a plain SVG, found a DOCTYPE. {advice}')
    try:
        root = ElementTree.fromstring(markup)
    except ElementTree.ParseError as error:
        raise OutputError(f'{name}: expected well-formed SVG, found: {error}. {advice}') from error
    for element in root.iter():
        _check_element(element, name)
    for attribute in ('width', 'height'):
        root.attrib.pop(attribute, None)
    ElementTree.register_namespace('', SVG_NAMESPACE)
    return ElementTree.tostring(root, encoding='unicode')


def _check_element(element: Any, name: str) -> None:
    """Raise unless an element is one of the allowed drawing elements with safe attributes."""
    kind = str(element.tag).removeprefix('{' + SVG_NAMESPACE + '}')
    if kind not in _ALLOWED:
        raise OutputError(f'{name}: expected only drawing elements, found <{kind}>.')
    if kind == 'style' and re.search(r'@import|url\(', element.text or ''):
        raise OutputError(f'{name}: the style refers to something outside the file.')
    for key, value in element.attrib.items():
        reference = key in ('href', _XLINK) and not value.startswith('data:image/')
        if key.lower().startswith('on') or reference or 'url(' in value:
            raise OutputError(f'{name}: refused attribute {key}="{value[:40]}".')
