"""Small charts as inline SVG: axes, points, intervals and labels in the page's own colours, readable without a legend.

Texts are real text, so they can be searched, and colours of ink come from the page's style sheet, so that a chart
follows its dark mode. Every chart has a title and a description for readers who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

PATHS = {  # marker -> outline on a square from -1 to 1; others are drawn as circles
    "s": "M-.85-.85h1.7v1.7h-1.7z",
    "D": "M0-1.15L1.15 0 0 1.15-1.15 0z",
    "^": "M0-1.1L1.1.9h-2.2z",
    "v": "M0 1.1L1.1-.9h-2.2z",
    "<": "M-1.1 0L.9-1.1v2.2z",
    ">": "M1.1 0L-.9-1.1v2.2z",
    "P": "M-.35-1.1h.7v.75h.75v.7h-.75v.75h-.7v-.75h-.75v-.7h.75z",
    "x": "M-1-.7L-.7-1 0-.3.7-1 1-.7.3 0 1 .7.7 1 0 .3-.7 1-1 .7-.3 0z",
}
CHAR = 0.55  # mean width of a character, in font sizes


def ink(color: str) -> str:
    """A colour as the page shows it: mixed with white in dark mode, by the page's variable `--keep`."""
    return f"color-mix(in srgb,{color} var(--keep),#fff)" if color.startswith("#") else color


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two ends.

    >>> ticks(0, 112)
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * (first + i), 10) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to the wanted ones, at least `gap` apart, within the ends where there is room.

    >>> apart([1, 1, 5], 1, 0, 10)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # centre and size of neighbours that touch
    for i in order:
        groups.append((wanted[i], 1))
        while True:
            centre, n = groups.pop()
            reach = gap * (n - 1) / 2
            centre = max(min(centre, high - reach), low + reach)
            if not groups or centre - reach >= groups[-1][0] + gap * (groups[-1][1] - 1) / 2 + gap - 1e-9:
                groups.append((centre, n))
                break
            before, m = groups.pop()
            groups.append(((before * m + centre * n) / (m + n), m + n))
    spread = [centre + gap * (k - (n - 1) / 2) for centre, n in groups for k in range(n)]
    found = dict(zip(order, spread))
    return [float(found[i]) for i in range(len(wanted))]


@dataclass
class Chart:
    """A chart that is being drawn.

    Attributes:
        title: its accessible name.
        description: what it shows, with the numbers.
        x: range of the horizontal axis.
        y: range of the vertical axis.
        width: of the viewBox; text has 12 units, so a chart 420 wide is legible from 320 CSS pixels on.
        height: of the viewBox.
        margin: top, right, bottom and left.
    """

    title: str
    description: str
    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 420
    height: int = 300
    margin: tuple[int, int, int, int] = (12, 12, 38, 40)
    marks: list[str] = field(default_factory=list)

    def px(self, value: float) -> float:
        """Horizontal position of a value."""
        (low, high), (_, right, _, left) = self.x, self.margin
        return round(left + (self.width - left - right) * (value - low) / (high - low), 1)

    def py(self, value: float) -> float:
        """Vertical position of a value."""
        (low, high), (top, _, bottom, _) = self.y, self.margin
        return round(self.height - bottom - (self.height - top - bottom) * (value - low) / (high - low), 1)

    def axes(
        self, xlabel: str, ylabel: str, xticks: Sequence[float] | None = None, yticks: Sequence[float] | None = None
    ) -> None:
        """Grid, ticks and labels; the vertical label stands above the axis, where it can be read without turning."""
        top, right, bottom, left = self.margin
        for value in ticks(*self.y) if yticks is None else yticks:
            y = self.py(value)
            self.marks.append(f'<line class="grid" x1="{left}" x2="{self.width - right}" y1="{y}" y2="{y}"/>')
            self.text(left - 6, y + 4, f"{value:g}", "end", "tick")
        for value in ticks(*self.x) if xticks is None else xticks:
            self.text(self.px(value), self.height - bottom + 16, f"{value:g}", "middle", "tick")
        base = self.height - bottom
        self.marks.append(f'<line class="axis" x1="{left}" x2="{self.width - right}" y1="{base}" y2="{base}"/>')
        self.text((left + self.width - right) / 2, self.height - 4, xlabel, "middle", "label")
        if ylabel:
            self.text(2, top - 10, ylabel, "start", "label")

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """A line of text."""
        self.marks.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>')

    def line(
        self, x1: float, y1: float, x2: float, y2: float, color: str = "", kind: str = "", width: float = 2
    ) -> None:
        """A line between two points of the data."""
        look = f' stroke="{ink(color)}" stroke-width="{width}"' if color else ""
        ends = f'x1="{self.px(x1)}" y1="{self.py(y1)}" x2="{self.px(x2)}" y2="{self.py(y2)}"'
        self.marks.append(f'<line {ends} class="{kind}"{look}/>')

    def path(self, points: Sequence[tuple[float, float]], color: str, kind: str = "", width: float = 2) -> None:
        """A line through points."""
        d = "M" + "L".join(f"{self.px(x)} {self.py(y)}" for x, y in points)
        self.marks.append(f'<path d="{d}" fill="none" stroke="{ink(color)}" stroke-width="{width}" class="{kind}"/>')

    def point(self, x: float, y: float, color: str, marker: str = "o", size: float = 6, kind: str = "") -> None:
        """A marker."""
        at = f'transform="translate({self.px(x)} {self.py(y)}) scale({size:g})"'
        shape = f'<path d="{PATHS[marker]}"' if marker in PATHS else '<circle r="1"'
        self.marks.append(f'{shape} {at} fill="{ink(color)}" class="mark {kind}"/>')

    def markup(self, kind: str = "chart") -> Markup:
        """The finished chart."""
        return Markup(
            f'<svg class="{kind}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}. {escape(self.description)}">{"".join(self.marks)}</svg>'
        )
