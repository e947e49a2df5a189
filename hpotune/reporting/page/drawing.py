"""Draws figures with vl-convert: as SVG for the page, and as SVG, PNG or PDF files. No browser and no network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpotune.config.text.outside_text import console_text
from hpotune.errors import HpotuneError, StudyFileError, nearest
from hpotune.reporting.page.charts.figure import Figure, file_spec
from hpotune.reporting.page.charts.look import Spec

FORMATS = ("svg", "png", "pdf")
_SCALE = 2.0
"""Pixels of a PNG per pixel of the figure: sharp in print."""


@contextmanager
def _drawing() -> Iterator[None]:
    """A context in which vl-convert's errors become one line.

    Raises: HpotuneError.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HpotuneError(
            f"a figure could not be drawn: {reason}; report this with the study's folder"
        ) from error


def shown_spec(spec: Mapping[str, object]) -> Spec:
    """A specification whose texts show their hidden characters: XML forbids most of them."""
    return {console_text(key, one_line=True): _shown(value) for key, value in spec.items()}


def _shown(value: object) -> object:
    if isinstance(value, str):
        return console_text(value, one_line=True)
    if isinstance(value, Mapping):
        return shown_spec(value)
    return [_shown(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def svg_of(spec: Spec) -> str:
    """The chart as an SVG element.

    Raises: HpotuneError where vl-convert cannot draw it.
    """
    import vl_convert

    with _drawing():
        found: str = vl_convert.vegalite_to_svg(shown_spec(spec), allowed_base_urls=[])
    return found


def inline_svg(spec: Spec) -> str:
    """The chart as an SVG element for an HTML page: without its own width and height, so that it follows the page."""
    svg = svg_of(spec)
    found = re.match(r'<svg [^>]*?width="([\d.]+)" height="([\d.]+)" viewBox="([^"]+)">', svg)
    assert found, "vl-convert gives each SVG a size"
    head = f'<svg class="chart" aria-hidden="true" viewBox="{found[3]}" data-width="{found[1]}">'
    return head + _plain(svg[found.end() :])


def _plain(body: str) -> str:
    """The SVG without what only serves screen readers, who get the text alternative, and without empty parts."""
    body = re.sub(r' (?:role|aria-[a-z]+)="[^"]*"', "", body)
    body = re.sub(r'<path class="(?:background|foreground)"[^>]*d=""[^>]*/>', "", body)
    body = re.sub(r'<path class="background" d="M0,0h0v0h0Z" pointer-events="none"/>', "", body)
    body = re.sub(r"<g/>", "", body)
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", body)


def check_file_format(path: Path) -> str:
    """The format that a file's name ends with.

    Raises: StudyFileError for another ending.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        given = f"ends with .{kind}" if kind else "has no ending"
        raise StudyFileError(f"{path}: {given}; {nearest(kind, FORMATS)}")
    return kind


def figure_file(figure: Figure, path: Path) -> bytes:
    """The figure in the format that the file's name ends with.

    Raises: StudyFileError for another ending, or a figure without content.
    """
    kind = check_file_format(path)
    if figure.why_not:
        raise StudyFileError(f"{figure.name}: nothing to draw: {figure.why_not}")
    import vl_convert

    spec = shown_spec(file_spec(figure))
    with _drawing():
        if kind == "svg":
            return svg_of(spec).encode()
        if kind == "png":
            return bytes(vl_convert.vegalite_to_png(spec, scale=_SCALE, allowed_base_urls=[]))
        return bytes(vl_convert.vegalite_to_pdf(spec, allowed_base_urls=[]))
