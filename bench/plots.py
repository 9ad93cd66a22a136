"""Plots as inline SVG: no script, no font, no image from elsewhere. Colours come from the page's style sheet.

    intervals       a row a contender: p25 to p75, least to p95, median, single samples
    distribution    the share of calls that were answered within a time, one step curve a contender (cumulative distribution)
    by_round        median of each round

Time is on a logarithmic axis everywhere, since contenders lie a thousandfold apart. Curves have labels in the order in which they
cross the median, and dashes beside their colours, so that nobody depends on colour alone.
"""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .interleave import Summary, percentile
from .units import duration, times

__all__ = ["by_round", "cumulative", "distribution", "intervals", "spread"]

_WIDE, _LEFT, _RIGHT, _ROW = 960, 180, 200, 34


def intervals(alive: Sequence[tuple[Sequence[Sequence[int]], Summary]]) -> str:
    everything = [[sample / 1000 for samples in rounds for sample in samples] for rounds, _ in alive]
    scale = _Log(
        min(map(min, everything)),
        max(one.p95 or max(samples) for (_, one), samples in zip(alive, everything, strict=True)),
    )
    high = _ROW * len(alive) + 34
    parts = [
        f"<svg viewBox='0 0 {_WIDE} {high}' role=img aria-label='latency of each contender'>",
        *_ticks(scale, high - 24),
    ]
    for row, ((_, one), samples) in enumerate(zip(alive, everything, strict=True)):
        y = _ROW * row + _ROW / 2 + 4
        ordered = sorted(samples)
        p75 = ordered[math.ceil(0.75 * len(ordered)) - 1]
        shown = samples[:: max(1, len(samples) // 150)]
        parts.append(f"<g class={one.role}><text x={_LEFT - 10} y={y + 4:.1f} text-anchor=end>{_e(one.name)}</text>")
        parts += [
            f"<circle class=dot cx={scale(sample):.1f} cy={y + (index * 7 % 17 - 8) * 0.9:.1f} r=1.8 />"
            for index, sample in enumerate(shown)
            if sample <= scale.high
        ]
        parts.append(
            f"<line class=whisker x1={scale(one.min):.1f} x2={scale(one.p95 or ordered[-1]):.1f} y1={y} y2={y} />"
        )
        parts.append(
            f"<rect class=box x={scale(one.p25):.1f} y={y - 7} width={max(1.0, scale(p75) - scale(one.p25)):.1f} height=14 rx=2 />"
        )
        parts.append(f"<line class=mid x1={scale(one.p50):.1f} x2={scale(one.p50):.1f} y1={y - 9} y2={y + 9} />")
        label = duration(one.p50) + (f"   x {times(one.ratio)}" if one.ratio is not None else "")
        parts.append(f"<text x={_WIDE - _RIGHT + 12} y={y + 4:.1f}>{_e(label)}</text></g>")
    parts.append("</svg>")
    return "".join(parts)


def cumulative(samples: Sequence[float]) -> list[tuple[float, float]]:
    """Each distinct value with the share of samples that do not exceed it, ascending; the last share is 1."""
    ordered = sorted(samples)
    return [
        (value, (index + 1) / len(ordered))
        for index, value in enumerate(ordered)
        if index + 1 == len(ordered) or ordered[index + 1] != value
    ]


_DASHES = ("", "7 3", "2 3", "10 3 2 3")
_COLOURS = 8


def distribution(alive: Sequence[tuple[Sequence[Sequence[int]], Summary]]) -> str:
    curves = []
    for number, (rounds, one) in enumerate(alive):
        samples = [sample / 1000 for samples in rounds for sample in samples]
        look = f"class='curve c{number % _COLOURS} {one.role}' stroke-dasharray='{_DASHES[number // _COLOURS % len(_DASHES)]}'"
        curves.append((percentile(sorted(samples), 0.5), samples, one, look))
    curves.sort(key=lambda curve: curve[0])
    scale = _Log(min(min(curve[1]) for curve in curves), max(max(curve[1]) for curve in curves))
    top, high = 12, max(300, 24 + 17 * len(curves))

    def y(share: float) -> float:
        return high - (high - top) * share

    parts = [
        f"<svg viewBox='0 0 {_WIDE} {high + 30}' role=img aria-label='cumulative distribution'>",
        *_ticks(scale, high),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 0.95, 1.0):
        parts.append(f"<line class=grid x1={_LEFT} x2={_WIDE - _RIGHT} y1={y(share):.1f} y2={y(share):.1f} />")
        label = "" if share == 1.0 else f"{share:.0%} within"
        parts.append(f"<text class=soft x={_LEFT - 10} y={y(share) + 4:.1f} text-anchor=end>{label}</text>")
    for row, (_, samples, one, look) in enumerate(curves):
        points, share = [f"{scale(min(samples)):.1f},{y(0):.1f}"], 0.0
        for value, reached in cumulative(samples):
            points += [f"{scale(value):.1f},{y(share):.1f}", f"{scale(value):.1f},{y(reached):.1f}"]
            share = reached
        parts.append(f"<polyline {look} points='{' '.join(points)}' />")
        at = top + 10 + 17 * row
        parts.append(f"<line {look} x1={_WIDE - _RIGHT + 12} x2={_WIDE - _RIGHT + 36} y1={at} y2={at} />")
        parts.append(f"<text x={_WIDE - _RIGHT + 42} y={at + 4}>{_e(one.name[:22])}</text>")
    return "".join([*parts, "</svg>"])


def by_round(summaries: Sequence[Summary]) -> str:
    values = [value for one in summaries for value in one.round_medians]
    low, top, high = _Log(min(values), max(values)), 10, max(170, 16 * len(summaries))
    count = max(len(one.round_medians) for one in summaries)
    step = (_WIDE - _LEFT - _RIGHT) / max(1, count - 1)

    def y(value: float) -> float:
        return high - (high - top) * low.share(value)

    parts = [f"<svg viewBox='0 0 {_WIDE} {high + 26}' role=img aria-label='median of each round'>"]
    for tick in low.ticks():
        parts.append(f"<line class=grid x1={_LEFT} x2={_WIDE - _RIGHT} y1={y(tick):.1f} y2={y(tick):.1f} />")
        parts.append(f"<text class=soft x={_LEFT - 10} y={y(tick) + 4:.1f} text-anchor=end>{_tick(tick)}</text>")
    labels = spread([y(one.round_medians[-1]) for one in summaries], high + 14)
    for one, label in zip(summaries, labels, strict=True):
        points = [(_LEFT + step * index, y(value)) for index, value in enumerate(one.round_medians)]
        path = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
        parts.append(f"<g class={one.role}><polyline class=trace points='{path}' />")
        parts += [f"<circle class=point cx={x:.1f} cy={at:.1f} r=2.5 />" for x, at in points]
        parts.append(f"<text x={_WIDE - _RIGHT + 12} y={label + 4:.1f}>{_e(one.name[:24])}</text></g>")
    parts += [
        f"<text class=soft x={_LEFT + step * index:.1f} y={high + 20} text-anchor=middle>{index + 1}</text>"
        for index in range(count)
    ]
    return "".join([*parts, "</svg>"])


def spread(wanted: Sequence[float], bottom: float, least: float = 15.0) -> list[float]:
    """Label positions in the same order as `wanted`, moved apart where two would touch, none below `bottom`."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    previous = -math.inf
    for index in order:
        previous = placed[index] = max(placed[index], previous + least)
    following = bottom + least
    for index in reversed(order):
        following = placed[index] = min(placed[index], following - least)
    return placed


@dataclass(frozen=True, slots=True)
class _Log:
    """A logarithmic axis over the plot's width, from a little below `least` to a little above `most`."""

    least: float
    most: float

    @property
    def low(self) -> float:
        return max(self.least, 1e-3) / 1.15

    @property
    def high(self) -> float:
        return max(self.most * 1.15, self.low * 3)

    def share(self, value: float) -> float:
        return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def __call__(self, value: float) -> float:
        return _LEFT + (_WIDE - _LEFT - _RIGHT) * min(1.0, self.share(value))

    def ticks(self) -> list[float]:
        """1, 10, 100 ...; with 2 and 5 between where the range is short."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        wide = math.log10(self.high / self.low) > 2.5
        candidates = [10.0**decade * step for decade in decades for step in ((1,) if wide else (1, 2, 5))]
        return [value for value in candidates if self.low <= value <= self.high]


def _ticks(scale: _Log, bottom: int) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale(tick)
        yield f"<line class=grid x1={x:.1f} x2={x:.1f} y1=4 y2={bottom} />"
        yield f"<text class=soft x={x:.1f} y={bottom + 18} text-anchor=middle>{_tick(tick)}</text>"


def _tick(micros: float) -> str:
    """A round value without its zeros behind the point: `10 µs`."""
    value, _, unit = duration(micros).partition(" ")
    return f"{float(value):g} {unit}"


def _e(text: str) -> str:
    return html.escape(text)
