"""Draws what the measures of growth found, as a small SVG: cost in µs, by how much there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 24, 40
LINES: Mapping[str, tuple[str, str]] = {
    "depth": ("#1f6f8b", "lend and settle a job"),
    "recover": ("#b5651d", "look for dead sessions"),
    "heartbeat": ("#5b8c3a", "a heartbeat"),
}
"""By figure: colour and name."""
STEPS = 3
"""Sizes of each measure; they stand side by side, as each is a multiple of the one before."""


def draw(growth: Mapping[str, float], path: Path) -> None:
    """Write the figures ``depth_…``, ``heartbeat_…`` and ``recover_…`` of *growth* to *path*."""
    lines = {name: _sizes(growth, name) for name in LINES}
    lines = {name: sizes for name, sizes in lines.items() if sizes}
    top = 10 * (1 + int(max(max(sizes.values()) for sizes in lines.values()) // 10))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="11">'
        ),
        "<title>Cost on Redis as there is more</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="14" fill="#333333">µs for each</text>',
    ]
    for value in range(0, top + 1, 10):
        y = _y(value, top)
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#333333">{value}</text>',
        ]
    for name, sizes in lines.items():
        parts += _line(name, sizes, top)
    parts += _axis(lines)
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _sizes(growth: Mapping[str, float], name: str) -> dict[int, float]:
    found = {
        int(figure.rpartition("_")[2]): value
        for figure, value in growth.items()
        if figure.startswith(f"{name}_")
    }
    return dict(sorted(found.items()))


def _x(place: int) -> float:
    return LEFT + 20 + place * (WIDTH - LEFT - RIGHT - 40) / (STEPS - 1)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)


def _line(name: str, sizes: Mapping[int, float], top: float) -> list[str]:
    colour, words = LINES[name]
    points = [(_x(place), _y(value, top)) for place, value in enumerate(sizes.values())]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points),
        f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="{colour}">{words}</text>',
    ]


def _axis(lines: Mapping[str, Mapping[int, float]]) -> list[str]:
    rows = {"queued": lines.get("depth", {}), "sessions": lines.get("heartbeat", {})}
    parts = []
    for row, (what, sizes) in enumerate(rows.items()):
        y = HEIGHT - BOTTOM + 16 + 14 * row
        parts += [
            f'<text x="{_x(place):.1f}" y="{y}" text-anchor="middle" fill="#333333">{size:,}</text>'
            for place, size in enumerate(sizes)
        ]
        if sizes:
            x = WIDTH - RIGHT + 10
            parts.append(f'<text x="{x}" y="{y}" fill="#333333">{what}</text>')
    return parts
