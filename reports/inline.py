"""Matplotlib's figures as inline SVG: one picture per panel, so that a page can stack them, in the page's own colours.

Text stays text, so it can be searched and takes the page's font. Inks and grids become the page's variables, and other
colours are mixed with the page's light ink in dark mode (`var(--keep)`), so that a figure follows its scheme.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import svg

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PAD = 3.0  # points around a panel, since the browser's font is not the one that the layout was made with
VARIABLES = {  # colours that are not those of a method -> the page's
    "#000000": "var(--ink)",
    "#333333": "var(--ink)",
    "#444444": "var(--soft)",
    "#555555": "var(--soft)",
    "#777777": "var(--soft)",
    "#b0b0b0": "var(--line)",
    "#bbbbbb": "var(--line)",
    "#e3e3e3": "var(--line)",
    "#ffffff": "var(--paper)",
}
COORDINATES = ("d", "points", "transform", "x", "y", "width", "height", "x1", "x2", "y1", "y2")


@dataclass(frozen=True)
class Panel:
    """One panel of a figure.

    Attributes:
        svg: an svg element.
        width: points; at 1.5 CSS pixels per point its smallest text is legible.
        styles: class name -> declarations that the svg uses.
    """

    svg: str
    width: float
    styles: dict[str, str]


def panels(figure: Figure, name: str, alt: str) -> list[Panel]:
    """The panels of a figure, in order; what belongs to none of them, such as a legend, is left out.

    Args:
        figure: laid out and no longer needed, since its panels are named here.
        name: of the figure; it makes the ids unique within a page.
        alt: what the whole figure shows; every panel adds its own title.
    """
    shown = [axes for axes in figure.axes if axes.axison]
    for number, axes in enumerate(shown):
        axes.set_gid(f"panel{number}")
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _shorten(root)
    shared = _shared(root, name)
    groups = {group.get("id"): group for group in root.iter("g")}
    height = float(root.get("viewBox", "0 0 0 0").split()[3])
    made = []
    for number, axes in enumerate(shown):
        group = groups[f"panel{number}"]
        used = {element.get("href", "#")[1:] for element in group.iter("use")}
        used |= {clip[5:-1] for element in group.iter() if (clip := element.get("clip-path"))}
        new = [shared.pop(id) for id in sorted(used & set(shared))]  # others are in an earlier panel
        made.append(_panel(group, axes, height, new, f"{_title(axes)}. {alt}"))
    return made


def _panel(
    group: ElementTree.Element, axes: Axes, height: float, shared: list[ElementTree.Element], label: str
) -> Panel:
    box = axes.get_tightbbox()
    scale = 72 / axes.figure.dpi
    left, right = box.x0 * scale - PAD, box.x1 * scale + PAD
    top, bottom = height - box.y1 * scale - PAD, height - box.y0 * scale + PAD
    size = f"{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}"
    drawing = ElementTree.Element("svg", {"class": "plot", "viewBox": size, "role": "img", "aria-label": label})
    defs = ElementTree.SubElement(drawing, "defs")
    defs.extend(shared)
    drawing.append(group)
    styles: dict[str, str] = {}
    for element in drawing.iter():
        if not (element.get("id") or "").startswith("plot-"):
            element.attrib.pop("id", None)
        if style := element.attrib.pop("style", ""):
            declared = _declarations(style)
            slug = "m" + hashlib.sha256(declared.encode()).hexdigest()[:6]
            styles[slug] = declared
            element.set("class", slug)
    return Panel(ElementTree.tostring(drawing, encoding="unicode"), right - left, styles)


def _title(axes: Axes) -> str:
    """What a panel is about: its title, else its vertical label, else its horizontal one."""
    titles = [axes.get_title(place) for place in ("left", "center", "right")]
    return next(filter(None, [*titles, axes.get_ylabel(), axes.get_xlabel()]), "Panel")


def _shorten(root: ElementTree.Element) -> None:
    """Leave out what a browser does not need: namespaces, comments, more than two decimals."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if HREF in element.attrib:
            element.set("href", element.attrib.pop(HREF))
        for key in COORDINATES:
            if key in element.attrib:
                short = re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[key])
                element.set(key, re.sub(r"\s+", " ", short).strip())
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None


def _shared(root: ElementTree.Element, name: str) -> dict[str, ElementTree.Element]:
    """Take the definitions out of the drawing and name them after the figure: new id -> element."""
    found = {}
    for parent in list(root.iter()):
        for defs in [child for child in parent if child.tag == "defs"]:
            parent.remove(defs)
            for element in defs:
                if id := element.get("id"):
                    element.set("id", f"plot-{name}-{id}")
                    found[f"plot-{name}-{id}"] = element
    for element in root.iter():
        if element.get("href"):
            element.set("href", f"#plot-{name}-{element.attrib['href'][1:]}")
        if element.get("clip-path"):
            element.set("clip-path", f"url(#plot-{name}-{element.attrib['clip-path'][5:-1]})")
    return found


def _declarations(style: str) -> str:
    """Declarations of matplotlib in the page's colours and font."""
    style = re.sub(r"font: (?:[a-z0-9]+ )*?([\d.]+)px [^;]*", r"font-size: \1px", style)
    return (
        re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0]) or svg.ink(found[0]), style)
        .replace(": ", ":")
        .replace("; ", ";")
    )
