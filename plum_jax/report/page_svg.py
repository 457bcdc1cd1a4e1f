"""A figure as inline SVG that takes its colours and its font from the page, readable on light and on dark.

Knows no drawing library: a figure is whatever can write itself as SVG.
"""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Protocol

STYLE_SHEET = pathlib.Path(__file__).parent / "page.css"


class Figure(Protocol):
    """What of matplotlib's figure is used."""

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """Writes the picture."""


def page_svg(figure: Figure, description: str, colours: Mapping[str, str]) -> str:
    """SVG text without ids, scripts or addresses of its own, of the page's width at most.

    Args:
      figure: drawn with text as text ("svg.fonttype": "none").
      description: what the picture shows, for who cannot see it.
      colours: colour as drawn -> what stands for it in the page, e.g. "var(--ink)".
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for drawn, variable in colours.items():
        svg = svg.replace(drawn, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" xmlns(:\w+)?=\"[^\"]*\"| version=\"[^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return _label(svg, description)


def _label(svg: str, description: str) -> str:
    """Replaces the fixed size by a greatest width, and says in words what the picture shows."""
    size = re.search(r'width="([\d.]+)pt"', svg[: svg.index(">")])
    assert size is not None, "matplotlib gives every figure a width"
    opening = re.sub(r' (width|height)="[^"]*"', "", svg[: svg.index(">")])
    description = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{opening} role="img" aria-label="{description}" style="max-width:{size[1]}pt">{svg[svg.index(">") + 1 :]}'


def standalone(svg: str) -> str:
    """The same picture as a file of its own, in the colours of the page's style sheet for light and for dark."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE_SHEET.read_text(), flags=re.DOTALL)
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    opening, _, rest = svg.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'
