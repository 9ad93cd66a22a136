"""What was measured, three times over: text for a terminal, JSON for a program, one HTML page for a person.

Guarantees
1. All three say the same numbers, the host, its doubts, and what could not be measured and why.
2. The page is one file: no script, no font, no image from elsewhere. Its plots are inline SVG.
3. The JSON holds every sample (microseconds, one list a round), so that anybody can take other statistics of it.

JSON, version 2: `{version, made_at, command, host, doubts[], load_after, stolen_s, cases[], tables[]}`; a case is `{name, question, base,
at_once, spaced_s, slice_s, pause_s, rounds, load, note, contenders[], absent[]}`, a contender the fields of `interleave.Summary` and
`samples_us`; a table `{name, question, columns, rows, note}`. In a case with `slice_s` a sample is a slice's length by its answers.
"""

import dataclasses
import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import plots
from .environment import Doubt, Host
from .interleave import SLOW_EVERY, SLOW_S, Absent, Outcome, Summary, summarise
from .survey import Table
from .units import duration, times

__all__ = ["Report", "as_html", "as_json", "as_text", "failures"]


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
    tables: Sequence[Table] = ()


def failures(report: Report) -> list[str]:
    lines = [
        f"{outcome.case.name}: {one.contender.name}: {one.failure}"
        for outcome in report.outcomes
        for one in outcome.series
        if one.failure is not None
    ]
    return lines + [f"{one.name}: {one.why}" for one in report.absent]


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
    for table in report.tables:
        yield from _table_lines(table)
        yield ""
    yield from _who(report)
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
        if one.failure is not None or one.left_out is not None:
            what = f"LEFT OUT: {one.left_out}" if one.failure is None else f"FAILED: {one.failure}"
            yield f"  {one.name:<{width}}  {one.role:<7} {what}"
            continue
        cells = _cells(one)
        yield f"  {one.name:<{width}}  {one.role:<7} " + "".join(f"{cells[name]:>{_WIDTHS[name]}}" for name in columns)
    for absent in case.absent:
        yield f"  NOT MEASURED  {absent.name}: {absent.why}. To have it: {absent.get}"
    yield f"  {_how(outcome, summaries)}"


def _how(outcome: Outcome, summaries: Sequence[Summary]) -> str:
    case = outcome.case
    several = f"{case.at_once} clients in loops" if case.slice_s else f"{case.at_once} at once"
    parts = [
        f"x: ratio of medians to '{case.base}' in the same round",
        f"{outcome.rounds} rounds, contenders in turn",
        *([several] if case.at_once > 1 and not case.spaced_s else []),
        *([f"{case.pause_s * 1000:.0f} ms between two turns"] if case.pause_s else []),
        "load average {:.2f} before, {:.2f} after".format(*outcome.load),
    ]
    if rare := [one.name for one in summaries if one.every > 1 and one.left_out is None]:
        parts.append(f"above {SLOW_S * 1000:.0f} ms a call, so in each {SLOW_EVERY}th pass only: {', '.join(rare)}")
    return "; ".join(parts)


def _table_lines(table: Table) -> Iterator[str]:
    yield f"{table.name}: {table.question}"
    rows = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    for row in rows:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {row[0]:<{len(first)}}  " + "  ".join(rest)
    if table.note:
        yield f"  {table.note}"


def _who(report: Report) -> Iterator[str]:
    """Each contender once, with its version and settings."""
    told = {one.name: one for outcome in report.outcomes for one in summarise(outcome)}
    if told:
        yield "What each of them is:"
    for one in told.values():
        yield f"  {one.name}: {one.about}"
    yield ""


_WIDTHS = {"min": 10, "p25": 10, "p50": 10, "p95": 10, "p99": 10, "x": 9, "x of rounds": 16, "per s": 10, "n": 7}


def _cells(one: Summary) -> dict[str, str]:
    low, high = one.ratio_low, one.ratio_high
    return {
        "min": duration(one.min),
        "p25": duration(one.p25),
        "p50": duration(one.p50),
        "p95": duration(one.p95),
        "p99": duration(one.p99),
        "x": times(one.ratio),
        "x of rounds": "-" if low is None or high is None else f"{times(low)}..{times(high)}",
        "per s": f"{one.per_second:,.{0 if one.per_second >= 10 else 1}f}" if one.per_second < 1e6 else "-",
        "n": str(one.samples),
    }


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
        "version": 2,
        "made_at": report.made_at,
        "command": report.command,
        "host": dataclasses.asdict(report.host),
        "doubts": [dataclasses.asdict(doubt) for doubt in report.doubts],
        "load_after": report.load_after,
        "stolen_s": report.stolen_s,
        "cases": [_case_document(outcome) for outcome in report.outcomes],
        "tables": [dataclasses.asdict(table) for table in report.tables],
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
        "spaced_s": case.spaced_s,
        "slice_s": case.slice_s,
        "pause_s": case.pause_s,
        "rounds": outcome.rounds,
        "load": outcome.load,
        "note": case.note,
        "contenders": contenders,
        "absent": [dataclasses.asdict(one) for one in case.absent],
    }


# --- HTML

_STYLE = """
:root { --ink:#1b1f24; --soft:#5b6570; --line:#d9dee3; --page:#ffffff; --card:#f6f7f9; --subject:#2458d3; --control:#7a8490; --peer:#b4590a; --bad:#b3261e }
.c0 { --c:#2458d3 } .c1 { --c:#7a8490 } .c2 { --c:#b4590a } .c3 { --c:#1b7f5a } .c4 { --c:#8e3ab5 } .c5 { --c:#b3261e } .c6 { --c:#0e7c97 } .c7 { --c:#8a7400 }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ec; --soft:#9aa4ae; --line:#353c44; --page:#14171a; --card:#1c2126;
  --subject:#7aa2ff; --control:#8f99a4; --peer:#e59a4e; --bad:#ff8a80 }
  .c0 { --c:#7aa2ff } .c1 { --c:#8f99a4 } .c2 { --c:#e59a4e } .c3 { --c:#5cc49c } .c4 { --c:#cb93e6 } .c5 { --c:#ff8a80 } .c6 { --c:#5bc4de } .c7 { --c:#d8c04f } }
body { margin:0 auto; max-width:70rem; padding:2rem 1.2rem; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, sans-serif }
h1 { font-size:1.5rem; margin:0 } h2 { font-size:1.1rem; margin:2.4rem 0 .2rem } p { margin:.3rem 0 } .soft, th, figcaption { color:var(--soft) }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.1rem 1rem } dt { color:var(--soft) } dd { margin:0 }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th, td { text-align:right; padding:.25rem .6rem; border-bottom:1px solid var(--line); white-space:nowrap; font-weight:normal }
th:first-child, td:first-child { text-align:left } td.subject { color:var(--subject); font-weight:600 } td.peer { color:var(--peer) } td[colspan] { text-align:left }
.facts td { white-space:normal; vertical-align:top }
.doubt { background:var(--card); border-left:3px solid var(--peer); padding:.4rem .8rem; margin:.4rem 0 } .bad { color:var(--bad); font-weight:600 }
figure { margin:1rem 0; } svg { width:100%; height:auto; display:block } svg text { font:12px system-ui, sans-serif; fill:var(--ink) } svg .soft { fill:var(--soft) }
.grid { stroke:var(--line) } .subject { --role:var(--subject) } .control { --role:var(--control) } .peer { --role:var(--peer) }
.box { fill:var(--role); opacity:.35 } .whisker { stroke:var(--role); stroke-width:1.5 } .mid { stroke:var(--role); stroke-width:3 } .dot { fill:var(--role); opacity:.22 }
.curve { fill:none; stroke-width:1.6; stroke:var(--c) } .curve.subject { stroke-width:3 } .swatch { stroke:var(--c) }
.trace { fill:none; stroke:var(--role); stroke-width:1.5 } .point { fill:var(--role) } code { background:var(--card); padding:.05rem .3rem }
"""

_INTERVALS = (
    "Log scale. Bar: p25 to p75 of all samples; line: least to p95; thick mark: median; faint dots: single samples."
)
_DISTRIBUTION = (
    "Share of all calls that were answered within a time: further left is faster, steeper is steadier. Log scale."
)
_ROUNDS = "Median of each round: flat lines mean that the machine held still."


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
    parts += [_table_html(table) for table in report.tables]
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
        if one.failure is not None or one.left_out is not None:
            bad, what = ("bad", f"failed: {one.failure}") if one.failure else ("soft", f"left out: {one.left_out}")
            rows.append(f"<tr><td class={one.role}>{_e(one.name)}<td colspan={len(columns)} class={bad}>{_e(what)}")
            continue
        cells = _cells(one)
        rows.append(f"<tr><td class={one.role}>{_e(one.name)}" + "".join(f"<td>{_e(cells[name])}" for name in columns))
    alive = [
        (series.rounds, one)
        for series, one in zip(outcome.series, summaries, strict=True)
        if one.samples and not one.failure
    ]
    parts = [f"<h2>{_e(case.question)}</h2><p class=soft>{_e(case.name)}. {_e(case.note)}</p>"]
    if alive:
        near = [
            pair for pair in alive if pair[1].role != "control" or (pair[1].ratio or 1) > 0.02
        ]  # a no-op presses flat
        shown = [(plots.intervals(alive), f"{_INTERVALS} x: to <b>{_e(case.base)}</b>.")]
        if not case.slice_s:
            shown.append((plots.distribution(near), _DISTRIBUTION))
        if outcome.rounds > 1:
            shown.append((plots.by_round([one for _, one in near]), _ROUNDS))
        parts += [f"<figure>{plot}<figcaption>{text}</figcaption></figure>" for plot, text in shown]
    parts += [
        "<div class=scroll><table><tr><th>"
        + "".join(f"<th>{name}" for name in columns)
        + "".join(rows)
        + f"</table></div><p class=soft>{_e(_how(outcome, summaries))}</p><dl>",
        *(f"<dt>{_e(one.name)}<dd>{_e(one.about)}" for one in summaries),
        "</dl>",
        *(_absent_html(one) for one in case.absent),
    ]
    return parts


def _table_html(table: Table) -> str:
    head, *rows = ["".join(f"<td>{_e(cell)}" for cell in row) for row in (table.columns, *table.rows)]
    body = "<tr>".join(rows)
    return (
        f"<h2>{_e(table.question)}</h2><p class=soft>{_e(table.name)}. {_e(table.note)}</p>"
        f"<div class=scroll><table class=facts><tr class=soft>{head}<tr>{body}</table></div>"
    )


def _absent_html(one: Absent) -> str:
    return f"<div class=doubt><b>Not measured: {_e(one.name)}</b>: {_e(one.why)}.<br><span class=soft>To have it: {_e(one.get)}</span></div>"


def _e(text: str) -> str:
    return html.escape(text)
