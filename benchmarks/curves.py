"""Draws the curves of `benchmarks.growth`, each with its exponent, and writes their table.

`python -m benchmarks.curves FILE PICTURE` writes an SVG and prints Markdown. A curve is drawn as what it was at its
first point times so much, on two logarithmic axes: a line that stays flat grows with nothing. The exponent is the
slope of the straight line through its points that errs least; 0 is flat, 1 is in proportion.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.growth import Growth, Point

WIDE, HIGH = 300, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 26, 34, 44
ACROSS = 3
RANGE = 1.5
"""Decades above and below 1 that are shown."""
RATE, DELAY = "#1f5fbf", "#c2410c"


def exponent(points: Sequence[Point], value: Callable[[Point], float]) -> float:
    """Return the slope of a value over the size, both in logarithms."""
    xs = [math.log(point.size) for point in points]
    ys = [math.log(value(point)) for point in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def rate_of(point: Point) -> float:
    """Return jobs a second."""
    return point.rate


def delay_of(point: Point) -> float:
    """Return the p99 of a claim."""
    return point.p99


def drawn(growth: Growth) -> str:
    """Return the picture."""
    curves = {name: points for name, points in growth.curves.items() if points[1:]}
    many = len(curves)
    wide, high = WIDE * min(ACROSS, many), HIGH * -(-many // ACROSS) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="11">',
        f'<rect width="{wide}" height="{high}" fill="white"/>',
    ]
    for number, (name, points) in enumerate(curves.items()):
        row, column = divmod(number, ACROSS)
        parts += [f'<g transform="translate({column * WIDE} {row * HIGH})">', *panel(name, points), "</g>"]
    legend = (
        f'<text x="{LEFT}" y="{high - 8}"><tspan fill="{RATE}">jobs a second</tspan> and '
        f'<tspan fill="{DELAY}">p99 of a claim</tspan>, as multiples of the first point</text>'
    )
    return "\n".join([*parts, legend, "</svg>", ""])


def panel(name: str, points: Sequence[Point]) -> list[str]:
    """Return one curve's axes and lines."""
    least, most = math.log10(points[0].size), math.log10(points[-1].size)

    def x_of(size: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * (math.log10(size) - least) / (most - least)

    def y_of(ratio: float) -> float:
        share = (max(-RANGE, min(RANGE, math.log10(ratio))) + RANGE) / (2 * RANGE)
        return HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * share

    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">{name}</text>']
    for ratio in (0.1, 1, 10):
        y = y_of(ratio)
        parts += [
            f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">x{ratio:g}</text>',
        ]
    for point in points:
        word = f"{point.size:,}" if point.size < 10_000 else f"10^{math.log10(point.size):.0f}"
        x, y = x_of(point.size), HIGH - BOTTOM + 16
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#555">{word}</text>')
    for colour, value in ((RATE, rate_of), (DELAY, delay_of)):
        first = value(points[0])
        places = [(x_of(point.size), y_of(value(point) / first)) for point in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
    words = f"exponents {exponent(points, rate_of):+.2f} and {exponent(points, delay_of):+.2f}"
    return [*parts, f'<text x="{LEFT}" y="{HIGH - 12}" fill="#333">{words}</text>']


def table(growth: Growth) -> str:
    """Return the table of all curves' ends."""
    rows = [
        "| as these grow | jobs a second | exponent | claim p99 | exponent | engine us a job |",
        "|---|---|---|---|---|---|",
    ]
    for name, points in growth.curves.items():
        if not points[1:]:
            continue
        first, last = points[0], points[-1]
        rows.append(
            f"| {name}, {first.size:,} to {last.size:,} "
            f"| {first.rate:,.0f} to {last.rate:,.0f} | {exponent(points, rate_of):+.2f} "
            f"| {first.p99 * 1000:.1f} to {last.p99 * 1000:.1f} ms | {exponent(points, delay_of):+.2f} "
            f"| {first.engine_us:.0f} to {last.engine_us:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Draw one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    growth = msgspec.json.decode(options.file.read_bytes(), type=Growth)
    options.picture.write_text(drawn(growth))
    print(table(growth))


if __name__ == "__main__":
    main()
