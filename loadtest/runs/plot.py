"""Line plots as SVG, without scripts. Colours are of the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 640
HEIGHT = 250
LEFT, RIGHT, TOP, BOTTOM = 58, 26, 12, 34
TICKS = 5
LEGEND_ROW = 16
COLOURS = ("#2f7fd1", "#d9541e", "#00946b", "#b65fa4", "#c98a00", "#7a7f8a")

_STYLE = (
    "text{fill:#555;font:11px system-ui,sans-serif}.grid{stroke:#ddd}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    + "".join(f".c{number}{{stroke:{colour}}}" for number, colour in enumerate(COLOURS))
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """Points in the order of x. A gap of more than `gap` in x breaks the line."""

    name: str
    points: Sequence[Point]
    gap: float = math.inf


@dataclass(frozen=True, slots=True)
class Axes:
    """How numbers become places.

    Args:
        log_y: for what spans several powers of ten; smaller than `least_y` is drawn there.
        x_ticks: x and its name; none for round numbers of seconds.
    """

    x_name: str = "seconds"
    y_name: str = ""
    log_y: bool = False
    least_y: float = 0.1
    x_ticks: Sequence[tuple[float, str]] = ()


def plot(lines: Sequence[Line], axes: Axes) -> str:
    """An SVG element with a legend; a sentence if there is nothing to draw."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return '<p class="none">Nothing was measured.</p>'
    xs = [x for line in drawn for x, _ in line.points]
    most = max(max(y for line in drawn for _, y in line.points), axes.least_y)
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)

    def x_place(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    y_ticks = powers(axes.least_y, most) if axes.log_y else round_steps(most)
    y_place = _scale(axes, y_ticks)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(axes.y_name)} by {escape(axes.x_name)}">'
    ]
    parts += _grid(axes, y_ticks, y_place, x_place, (x_low, x_high))
    for number, line in enumerate(drawn):
        parts.append(_path(line, number, x_place, y_place))
    parts.append("</svg>")
    return "".join(parts) + _legend(drawn)


def svg_file(lines: Sequence[Line], axes: Axes) -> str:
    """A plot that stands by itself, with its colours and its legend. There has to be a point to draw."""
    drawn = [line for line in lines if line.points]
    height = HEIGHT + LEGEND_ROW * len(drawn)
    entries = ""
    for number, line in enumerate(drawn):
        y = HEIGHT + LEGEND_ROW * number + 6
        entries += f'<path class="line c{number % 6}" d="M{LEFT} {y}h18"/>'
        entries += f'<text x="{LEFT + 26}" y="{y + 4}">{escape(line.name)}</text>'
    inside = plot(drawn, axes).partition(">")[2].partition("</svg>")[0]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{inside}{entries}</svg>\n'
    )


def _scale(axes: Axes, ticks: Sequence[float]) -> Callable[[float], float]:
    room = HEIGHT - TOP - BOTTOM
    if not axes.log_y:
        return lambda y: HEIGHT - BOTTOM - y / ticks[-1] * room
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    return lambda y: HEIGHT - BOTTOM - (math.log10(max(y, axes.least_y)) - low) / (high - low) * room


def _grid(
    axes: Axes,
    y_ticks: Sequence[float],
    y_place: Callable[[float], float],
    x_place: Callable[[float], float],
    bounds: tuple[float, float],
) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = y_place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number_text(tick)}</text>')
    x_ticks = axes.x_ticks or [(step, number_text(step)) for step in round_steps(bounds[1])]
    for at, name in x_ticks:
        if bounds[0] <= at <= bounds[1]:
            parts.append(
                f'<text x="{x_place(at):.1f}" y="{HEIGHT - BOTTOM + 16}" '
                f'text-anchor="middle">{escape(name)}</text>'
            )
    parts.append(
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">'
        f"{escape(axes.x_name)}</text>"
    )
    parts.append(f'<text class="name" x="{LEFT}" y="{HEIGHT - 3}">{escape(axes.y_name)}</text>')
    return parts


def _path(
    line: Line, number: int, x_place: Callable[[float], float], y_place: Callable[[float], float]
) -> str:
    steps: list[str] = []
    before = -math.inf
    for x, y in line.points:
        verb = "L" if steps and x - before <= line.gap else "M"
        steps.append(f"{verb}{x_place(x):.1f} {y_place(y):.1f}")
        before = x
    if len(steps) == 1:
        steps.append("h0.1")
    return f'<path class="line c{number % 6}" d="{"".join(steps)}"/>'


def _legend(lines: Sequence[Line]) -> str:
    entries = "".join(
        f'<li><i class="c{number % 6}"></i>{escape(line.name)}</li>' for number, line in enumerate(lines)
    )
    return f'<ul class="legend">{entries}</ul>'


def round_steps(most: float) -> list[float]:
    """From 0 to at least `most` in steps of 1, 2 or 5 times a power of ten."""
    rough = max(most, 1e-9) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * count for count in range(math.ceil(most / step - 1e-9) + 1)]


def powers(least: float, most: float) -> list[float]:
    """Powers of ten from `least` to at least `most`."""
    low = math.floor(math.log10(least))
    high = max(math.ceil(math.log10(most) - 1e-9), low + 1)
    return [10.0**power for power in range(low, high + 1)]


def number_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"
