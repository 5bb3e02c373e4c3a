"""Line charts as SVG, for a page that stands alone."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

_WIDTH, _HEIGHT = 860, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 28, 30
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555")
_TICKS = 5

Points = Sequence[tuple[float, float]]


def lines(title: str, unit: str, series: Mapping[str, Points], log: bool = False) -> str:
    """A chart of each series over seconds; `log`: powers of ten upwards, for positive values."""
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return f"<p>{escape(title)}: nothing to show</p>"
    right = max(x for points in drawn.values() for x, _ in points) or 1.0
    values = [y for points in drawn.values() for _, y in points]
    if log:
        low, high = _powers([y for y in values if y > 0] or [1.0])
    else:
        low, high = 0.0, _round_up(max(values))

    def place(x: float, y: float) -> tuple[float, float]:
        scaled = (log10(max(y, 10**low)) if log else y) - low
        across = _LEFT + x / right * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - scaled / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    marks = range(round(low), round(high) + 1) if log else range(_TICKS + 1)
    ticks = [10.0**k for k in marks] if log else [high * k / _TICKS for k in marks]
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="14" class="title">{escape(title)}, {escape(unit)}</text>',
    ]
    for tick in ticks:
        _, y = place(0, tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for k in range(_TICKS + 1):
        x, _ = place(right * k / _TICKS, 10**low if log else 0)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f"{right * k / _TICKS:.3g} s</text>"
        )
    for number, (name, points) in enumerate(drawn.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in sorted(points))
        parts.append(f'<polyline points="{path}" stroke="{colour}"/>')
        parts.append(
            f'<text x="{_WIDTH - _RIGHT - 110 * (len(drawn) - number - 1)}" y="14" '
            f'text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _powers(values: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around them."""
    low, high = int(log10(min(values)) // 1), -int(-log10(max(values)) // 1)
    return float(low), float(max(high, low + 1))


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10, 20, …"""
    if value <= 0:
        return 1.0
    power = 10.0 ** (log10(value) // 1)
    return next(float(step * power) for step in (1, 2, 2.5, 5, 10) if step * power >= value)
