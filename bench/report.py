"""What was measured, three times over: text for a terminal, JSON for a program, one HTML page for a person.

Guarantees
1. All three say the same numbers, the host, its doubts, and what could not be measured and why.
2. The page is one file: no script, no font, no image from elsewhere. Its plots are inline SVG.
3. The JSON holds every sample (microseconds, one list a round), so that anybody can take other statistics of it.

JSON, version 1: `{version, made_at, command, host, doubts[], load_after, stolen_s, cases[]}`; a case is `{name, question, base, at_once,
pause_s, rounds, note, contenders[], absent[]}`, a contender the fields of `interleave.Summary` and `samples_us`.
"""

import dataclasses
import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .environment import Doubt, Host
from .interleave import Absent, Outcome, Summary, summarise

__all__ = ["Report", "as_html", "as_json", "as_text", "duration", "failures"]


@dataclass(frozen=True, slots=True)
class Report:
    made_at: str
    command: str
    host: Host
    doubts: Sequence[Doubt]
    load_after: tuple[float, float, float]
    stolen_s: float | None
    outcomes: Sequence[Outcome]
    absent: Sequence[Absent] = ()
    """Whole subjects that could not be measured."""


def failures(report: Report) -> list[str]:
    lines = [
        f"{outcome.case.name}: {one.contender.name}: {one.failure}"
        for outcome in report.outcomes
        for one in outcome.series
        if one.failure is not None
    ]
    return lines + [f"{one.name}: {one.why}" for one in report.absent]


def duration(micros: float | None) -> str:
    if micros is None:
        return "-"
    if math.isnan(micros):
        return "failed"
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if micros >= size:
            value = micros / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{micros * 1000:.0f} ns"


# --- text


def as_text(report: Report) -> str:
    return "\n".join(_text_lines(report)) + "\n"


def _text_lines(report: Report) -> Iterator[str]:
    yield f"agent-kernel bench   {report.made_at}   {report.command}"
    yield ""
    for name, value in _facts(report):
        yield f"  {name:<12} {value}"
    yield ""
    if report.doubts:
        yield "What makes this host unreliable:"
        for doubt in report.doubts:
            yield f"  {doubt.seen}: {doubt.why}."
            yield f"      remedy: {doubt.fix}"
        yield ""
    for outcome in report.outcomes:
        yield from _case_lines(outcome)
        yield ""
    for one in report.absent:
        yield f"NOT MEASURED  {one.name}: {one.why}. To have it: {one.get}"
    yield "Trust the ratios (x, inside one run) and the minimum; an absolute time is this machine's at this moment."


def _case_lines(outcome: Outcome) -> Iterator[str]:
    case = outcome.case
    summaries = summarise(outcome)
    yield f"{case.name}: {case.question}"
    if case.note:
        yield f"  {case.note}"
    width = max(len(one.name) for one in summaries)
    columns = ("min", "p25", "p50", "p95", "p99", "x", "x of rounds", "per s", "n")
    yield f"  {'':<{width}}  {'':<7} " + "".join(f"{name:>{_WIDTHS[name]}}" for name in columns)
    for one in summaries:
        if one.failure is not None:
            yield f"  {one.name:<{width}}  {one.role:<7} FAILED: {one.failure}"
            continue
        cells = _cells(one)
        yield f"  {one.name:<{width}}  {one.role:<7} " + "".join(f"{cells[name]:>{_WIDTHS[name]}}" for name in columns)
    for absent in case.absent:
        yield f"  NOT MEASURED  {absent.name}: {absent.why}. To have it: {absent.get}"
    yield (
        f"  x: ratio of medians to '{case.base}' in the same round; {outcome.rounds} rounds, contenders in turn"
        + (f", {case.at_once} at once" if case.at_once > 1 else "")
        + (f", {case.pause_s * 1000:.0f} ms between two turns" if case.pause_s else "")
    )


_WIDTHS = {"min": 10, "p25": 10, "p50": 10, "p95": 10, "p99": 10, "x": 9, "x of rounds": 16, "per s": 10, "n": 7}


def _cells(one: Summary) -> dict[str, str]:
    low, high = one.ratio_low, one.ratio_high
    return {
        "min": duration(one.min),
        "p25": duration(one.p25),
        "p50": duration(one.p50),
        "p95": duration(one.p95),
        "p99": duration(one.p99),
        "x": _ratio(one.ratio),
        "x of rounds": "-" if low is None or high is None else f"{_ratio(low)}..{_ratio(high)}",
        "per s": f"{one.per_second:,.{0 if one.per_second >= 10 else 1}f}" if one.per_second < 1e6 else "-",
        "n": str(one.samples),
    }


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _facts(report: Report) -> list[tuple[str, str]]:
    host = report.host
    before, after = (" ".join(f"{value:.2f}" for value in load) for load in (host.load, report.load_after))
    stolen = "unknown" if report.stolen_s is None else f"{report.stolen_s:.2f} s of CPU by the hypervisor"
    return [
        ("cpu", f"{host.cpu}, {host.cpus} usable{', virtual' if host.virtual else ''}, governor {host.governor}"),
        ("kernel", host.kernel),
        ("load", f"{before} before, {after} after; stolen meanwhile: {stolen}"),
        ("files", f"{host.file_system} ({host.folder})"),
        ("python", f"{host.python}, SQLite {host.sqlite}, agent-kernel {host.agent_kernel}"),
    ]


# --- JSON


def as_json(report: Report) -> str:
    document = {
        "version": 1,
        "made_at": report.made_at,
        "command": report.command,
        "host": dataclasses.asdict(report.host),
        "doubts": [dataclasses.asdict(doubt) for doubt in report.doubts],
        "load_after": report.load_after,
        "stolen_s": report.stolen_s,
        "cases": [_case_document(outcome) for outcome in report.outcomes],
        "absent": [dataclasses.asdict(one) for one in report.absent],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _case_document(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    contenders = []
    for series, summary in zip(outcome.series, summarise(outcome), strict=True):
        numbers = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in dataclasses.asdict(summary).items()
        }
        samples = [[sample / 1000 for sample in samples] for samples in series.rounds]
        contenders.append({**numbers, "samples_us": samples})
    return {
        "name": case.name,
        "question": case.question,
        "base": case.base,
        "at_once": case.at_once,
        "pause_s": case.pause_s,
        "rounds": outcome.rounds,
        "note": case.note,
        "contenders": contenders,
        "absent": [dataclasses.asdict(one) for one in case.absent],
    }


# --- HTML

_STYLE = """
:root { --ink:#1b1f24; --soft:#5b6570; --line:#d9dee3; --page:#ffffff; --card:#f6f7f9; --subject:#2458d3; --control:#7a8490; --peer:#b4590a; --bad:#b3261e }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ec; --soft:#9aa4ae; --line:#353c44; --page:#14171a; --card:#1c2126;
  --subject:#7aa2ff; --control:#8f99a4; --peer:#e59a4e; --bad:#ff8a80 } }
body { margin:0 auto; max-width:62rem; padding:2rem 1.2rem; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, sans-serif }
h1 { font-size:1.5rem; margin:0 } h2 { font-size:1.1rem; margin:2.4rem 0 .2rem } p { margin:.3rem 0 } .soft, th, figcaption { color:var(--soft) }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.1rem 1rem } dt { color:var(--soft) } dd { margin:0 }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th, td { text-align:right; padding:.25rem .6rem; border-bottom:1px solid var(--line); white-space:nowrap; font-weight:normal }
th:first-child, td:first-child { text-align:left } td.subject { color:var(--subject); font-weight:600 } td.peer { color:var(--peer) }
.doubt { background:var(--card); border-left:3px solid var(--peer); padding:.4rem .8rem; margin:.4rem 0 } .bad { color:var(--bad); font-weight:600 }
figure { margin:1rem 0; } svg { width:100%; height:auto; display:block } svg text { font:12px system-ui, sans-serif; fill:var(--ink) } svg .soft { fill:var(--soft) }
.grid { stroke:var(--line) } .subject { --role:var(--subject) } .control { --role:var(--control) } .peer { --role:var(--peer) }
.box { fill:var(--role); opacity:.35 } .whisker { stroke:var(--role); stroke-width:1.5 } .mid { stroke:var(--role); stroke-width:3 } .dot { fill:var(--role); opacity:.22 }
.trace { fill:none; stroke:var(--role); stroke-width:1.5 } .point { fill:var(--role) } code { background:var(--card); padding:.05rem .3rem }
"""

_INTERVALS = (
    "Log scale. Bar: p25 to p75 of all samples; line: least to p95; thick mark: median; faint dots: single samples."
)
_ROUNDS = "Median of each round: flat lines mean that the machine held still."

_WIDE, _LEFT, _RIGHT, _ROW = 920, 180, 165, 34


def as_html(report: Report) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>agent-kernel bench, {_e(report.made_at)}</title><style>{_STYLE}</style>",
        f"<h1>agent-kernel bench</h1><p class=soft>{_e(report.made_at)} &middot; <code>{_e(report.command)}</code></p><dl>",
        *(f"<dt>{_e(name)}<dd>{_e(value)}" for name, value in _facts(report)),
        "</dl>",
    ]
    if report.doubts:
        parts.append("<h2>What makes this host unreliable</h2>")
        parts += [
            f"<div class=doubt><b>{_e(doubt.seen)}</b>: {_e(doubt.why)}.<br><span class=soft>Remedy: {_e(doubt.fix)}</span></div>"
            for doubt in report.doubts
        ]
    for outcome in report.outcomes:
        parts += _case_html(outcome)
    parts += [_absent_html(one) for one in report.absent]
    parts.append(
        "<p class=soft>Trust the ratios, taken inside one run, and the minimum; an absolute time is this machine's at this moment.</p></html>"
    )
    return "\n".join(parts) + "\n"


def _case_html(outcome: Outcome) -> list[str]:
    case = outcome.case
    summaries = summarise(outcome)
    columns = ("min", "p25", "p50", "p95", "p99", "x", "x of rounds", "per s", "n")
    rows = []
    for one in summaries:
        if one.failure is not None:
            rows.append(
                f"<tr><td class={one.role}>{_e(one.name)}<td colspan={len(columns)} class=bad>failed: {_e(one.failure)}"
            )
            continue
        cells = _cells(one)
        rows.append(f"<tr><td class={one.role}>{_e(one.name)}" + "".join(f"<td>{_e(cells[name])}" for name in columns))
    alive = [(series.rounds, one) for series, one in zip(outcome.series, summaries, strict=True) if one.failure is None]
    parts = [f"<h2>{_e(case.question)}</h2><p class=soft>{_e(case.name)}. {_e(case.note)}</p>"]
    if alive:
        near = [one for _, one in alive if one.ratio is None or one.ratio > 0.02]  # a no-op would press the rest flat
        intervals, rounds = _interval_plot(alive), _round_plot(near)
        parts.append(f"<figure>{intervals}<figcaption>{_INTERVALS} x: to <b>{_e(case.base)}</b>.</figcaption></figure>")
        parts.append(f"<figure>{rounds}<figcaption>{_ROUNDS}</figcaption></figure>")
    parts += [
        "<div class=scroll><table><tr><th>"
        + "".join(f"<th>{name}" for name in columns)
        + "".join(rows)
        + "</table></div><dl>",
        *(f"<dt>{_e(one.name)}<dd>{_e(one.about)}" for one in summaries),
        "</dl>",
        *(_absent_html(one) for one in case.absent),
    ]
    return parts


def _absent_html(one: Absent) -> str:
    return f"<div class=doubt><b>Not measured: {_e(one.name)}</b>: {_e(one.why)}.<br><span class=soft>To have it: {_e(one.get)}</span></div>"


def _interval_plot(alive: Sequence[tuple[Sequence[Sequence[int]], Summary]]) -> str:
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
        label = duration(one.p50) + (f"  ×{_ratio(one.ratio)}" if one.ratio is not None else "")
        parts.append(f"<text x={_WIDE - _RIGHT + 12} y={y + 4:.1f}>{_e(label)}</text></g>")
    parts.append("</svg>")
    return "".join(parts)


def _round_plot(summaries: Sequence[Summary]) -> str:
    values = [value for one in summaries for value in one.round_medians]
    low, top, high = _Log(min(values), max(values)), 10, 170
    count = max(len(one.round_medians) for one in summaries)
    step = (_WIDE - _LEFT - _RIGHT) / max(1, count - 1)

    def y(value: float) -> float:
        return high - (high - top) * low.share(value)

    parts = [f"<svg viewBox='0 0 {_WIDE} {high + 26}' role=img aria-label='median of each round'>"]
    for tick in low.ticks():
        parts.append(f"<line class=grid x1={_LEFT} x2={_WIDE - _RIGHT} y1={y(tick):.1f} y2={y(tick):.1f} />")
        parts.append(f"<text class=soft x={_LEFT - 10} y={y(tick) + 4:.1f} text-anchor=end>{_tick(tick)}</text>")
    labels = _spread([y(one.round_medians[-1]) for one in summaries])
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


def _spread(wanted: Sequence[float], least: float = 15.0) -> list[float]:
    """Label positions in the same order as `wanted`, moved down where two would touch."""
    placed = [0.0] * len(wanted)
    previous = -math.inf
    for index in sorted(range(len(wanted)), key=wanted.__getitem__):
        previous = max(wanted[index], previous + least)
        placed[index] = previous
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
