"""Charts as SVG, in a few lines: pairs of bars, and small line charts. Readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report import Curve, Row

COLOURS = ("#2a78d6", "#8a8f98", "#d08a2e", "#7a5cc0")
STYLE = """<style>text{font:12px system-ui,sans-serif;fill:#333}.axis{stroke:#8886}
@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"""
WIDTH = 760
LABEL, BAR, GAP = 300, 13, 14
PANEL_W, PANEL_H, PAD = 380, 210, 44


def bars(rows: Sequence[Row]) -> str:
    """neuron and the best peer of each row, in tokens per second; the faster one's bar has the whole width."""
    parts, y = [], 10
    for row in rows:
        parts.append(_text(LABEL - 10, y + BAR, row.what, "end"))
        best = max(row.peers, key=lambda name: median(row.peers[name]))
        rates = {"neuron": median(row.neuron), best: median(row.peers[best])}
        for colour, (name, rate) in zip(COLOURS, rates.items(), strict=False):
            length = (WIDTH - LABEL - 190) * rate / max(rates.values())
            parts.append(_bar(y, length, colour))
            parts.append(_text(LABEL + length + 6, y + BAR - 2, f"{rate:,.0f} tok/s {name}"))
            y += BAR + 2
        y += GAP
    return _svg(WIDTH, y, parts)


def lines(curves: Sequence[Curve]) -> str:
    """A panel for each curve, two in a row; both axes begin at 0."""
    parts = [part for at, curve in enumerate(curves) for part in _panel(curve, at % 2, at // 2)]
    return _svg(WIDTH, PANEL_H * -(-len(curves) // 2), parts)


def _panel(curve: Curve, column: int, line: int) -> Iterator[str]:
    left, top = column * PANEL_W + PAD, line * PANEL_H + 34
    width, height = PANEL_W - PAD - 20, PANEL_H - 90
    most_x = max(curve.xs)
    most_y = 1.15 * max(max(values) for values in curve.series.values())
    yield _text(left, top - 18, f"{curve.what}, {curve.unit}")
    yield f'<path class="axis" fill="none" d="M{left} {top}v{height}h{width}"/>'
    yield _text(left - 4, top + 8, f"{most_y:.3g}", "end")
    yield _text(left - 4, top + height, "0", "end")
    yield _text(left + width, top + height + 16, f"{most_x:,g} {curve.x_name}", "end")
    for at, (name, values) in enumerate(curve.series.items()):
        points = " ".join(
            f"{left + width * x / most_x:.1f},{top + height * (1 - y / most_y):.1f}"
            for x, y in zip(curve.xs, values, strict=True)
        )
        yield f'<polyline fill="none" stroke="{COLOURS[at]}" stroke-width="2" points="{points}"/>'
        yield f'<rect x="{left + 95 * at}" y="{top + height + 24}" width="10" height="10" fill="{COLOURS[at]}"/>'
        yield _text(left + 95 * at + 14, top + height + 33, name)


def _bar(y: float, length: float, colour: str) -> str:
    return f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    )
    return "\n".join([head, STYLE, *parts, "</svg>\n"])
