"""The bench: its statistics, its order, its verdict on outputs, and its report. No test looks at a time."""

import asyncio
import json
import re
import sys

import pytest
from agent_kernel_bench import bench_sandbox
from agent_kernel_bench.__main__ import main
from agent_kernel_bench.controls import command, empty_process
from agent_kernel_bench.environment import Host, doubts, look
from agent_kernel_bench.interleave import Absent, Case, Contender, Outcome, Series, measure, percentile, summarise
from agent_kernel_bench.report import Report, as_html, as_json, as_text, duration, failures


def counter(name, log, output=1, wrong=lambda _: None):
    async def once():
        log.append(name)
        return output

    return Contender(name, "subject", f"counts as {name}", once, wrong)


def series(name, rounds):
    async def never():
        raise AssertionError

    return Series(Contender(name, "control", "", never, lambda _: None), rounds=rounds)


def test_contenders_take_turns_and_the_order_moves_on():
    log = []
    case = Case("t", "?", [counter(name, log) for name in "ABC"], base="A", passes=4)
    outcome = asyncio.run(measure(case, 1))
    measured = "".join(log)[3:]  # one warm-up turn each
    assert measured == "ABCBCACABABC"
    assert [len(one.rounds[0]) for one in outcome.series] == [4, 4, 4]


def test_percentile_is_the_nearest_rank():
    assert [percentile([1, 2, 3, 4], share) for share in (0.25, 0.5, 0.75, 0.95)] == [1, 2, 3, 4]
    assert percentile([7], 0.99) == 7


def test_ratio_is_taken_inside_each_round_so_drift_of_the_machine_cancels():
    steady = series("base", [[100], [1000], [10_000]])
    double = series("twice", [[200], [2000], [20_000]])
    base, twice = summarise(Outcome(Case("t", "?", [], base="base"), [steady, double], 3))
    assert (twice.ratio, twice.ratio_low, twice.ratio_high) == (2, 2, 2)
    assert base.ratio == 1
    assert twice.p50 == 2.0  # microseconds: the median of the rounds' medians


def test_tail_percentiles_are_withheld_from_few_samples():
    few, many = series("few", [[1] * 19]), series("many", [[1] * 100])
    one, other = summarise(Outcome(Case("t", "?", [], base="few"), [few, many], 1))
    assert (one.p95, one.p99) == (None, None)
    assert other.p95 is not None
    assert other.p99 is not None


def test_a_wrong_output_voids_the_numbers_and_fails_the_run():
    log = []
    case = Case("t", "?", [counter("A", log), counter("B", log, 2, lambda v: f"{v}, not 1")], base="A", passes=2)
    report = reported(asyncio.run(measure(case, 1)))
    assert failures(report) == ["t: B: wrong output: 2, not 1"]
    assert "FAILED: wrong output: 2, not 1" in as_text(report)


def test_a_contender_that_raises_is_out_and_the_others_are_measured():
    log = []

    async def broken():
        raise OSError("no such thing")

    case = Case("t", "?", [counter("A", log), Contender("B", "peer", "", broken, lambda _: None)], base="A", passes=2)
    outcome = asyncio.run(measure(case, 2))
    assert outcome.series[1].failure == "OSError: no such thing"
    assert [len(samples) for samples in outcome.series[0].rounds] == [2, 2]
    assert "NaN" not in as_json(reported(outcome))


def test_calls_at_once_are_counted_each_from_the_common_start():
    log = []
    case = Case("t", "?", [counter("A", log)], base="A", passes=2, at_once=5)
    outcome = asyncio.run(measure(case, 1))
    [samples] = outcome.series[0].rounds
    assert len(samples) == 10
    assert samples[:5] == sorted(samples[:5])
    assert outcome.series[0].bursts == [max(samples[:5]), max(samples[5:])]


def reported(*outcomes, absent=(), doubts=()):
    host = Host("cpu", 2, "Linux 6", "unknown", (0.0, 0.0, 0.0), False, "ext4", "folder", "CPython 3", "3.45", "0.1")
    return Report("2026-01-01T00:00:00Z", "agent-kernel bench", host, doubts, (0.0, 0.0, 0.0), None, outcomes, absent)


def test_an_absent_peer_is_said_in_text_json_and_page():
    log = []
    absent = Absent("bubblewrap", "bwrap is not installed", "apt-get install bubblewrap")
    case = Case("t", "?", [counter("A", log)], base="A", passes=1, absent=[absent])
    report = reported(asyncio.run(measure(case, 1)))
    for face in (as_text(report), as_json(report), as_html(report)):
        assert "bwrap is not installed" in face
        assert "apt-get install bubblewrap" in face
    assert failures(report) == []


def test_the_page_stands_alone_and_escapes_what_it_shows():
    log = []
    case = Case("t", "is 1 < 2 & 3?", [counter("<b>A</b>", log)], base="<b>A</b>", passes=3)
    page = as_html(reported(asyncio.run(measure(case, 2))))
    assert "<b>A</b>" not in page
    assert "&lt;b&gt;A" in page
    assert "is 1 &lt; 2 &amp; 3?" in page
    assert page.count("<svg") == page.count("</svg>") == 2
    assert not re.search(r"<script|<link|<img|https?://|url\(", page)
    assert not re.search(r"nan|inf\b", page.split("</style>")[1], re.IGNORECASE)


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0.5, "500 ns"),
        (1, "1.00 µs"),
        (12.34, "12.3 µs"),
        (999, "999 µs"),
        (2500, "2.50 ms"),
        (3e6, "3.00 s"),
        (None, "-"),
    ],
)
def test_durations_are_shown_with_three_digits_and_a_unit(micros, shown):
    assert duration(micros) == shown


def test_host_facts_are_read_and_a_memory_file_system_is_doubted(tmp_path):
    host = look(tmp_path)
    assert host.cpus >= 1
    assert host.python.endswith(".".join(map(str, sys.version_info[:3])))
    in_memory = Host("c", 4, "Linux 6", "unknown", (0.0, 0.0, 0.0), False, "tmpfs", "f", "p", "3", "0")
    on_disk = Host("c", 4, "Linux 6", "unknown", (0.0, 0.0, 0.0), False, "ext4", "f", "p", "3", "0")
    assert "the files are on tmpfs" in [doubt.seen for doubt in doubts(in_memory)]
    assert "the files are on tmpfs" not in [doubt.seen for doubt in doubts(on_disk)]


def test_load_of_others_is_doubted():
    busy = Host("c", 2, "Linux 6", "powersave", (1.5, 0.0, 0.0), False, "ext4", "f", "p", "3", "0")
    seen = [doubt.seen for doubt in doubts(busy)]
    assert "load average 1.50 on 2 CPUs" in seen
    assert "CPU governor powersave" in seen


def test_a_command_is_checked_by_its_status_and_its_output():
    right = command("echo", "control", "", [sys.executable, "-I", "-S", "-c", "print(1)"])
    failing = command("exit", "control", "", [sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"])
    assert right.wrong(asyncio.run(right.once())) is None
    assert failing.wrong(asyncio.run(failing.once())).startswith("exit 3")
    assert right.wrong((0, b"2\n")) is not None
    assert empty_process().wrong(1) == "exit 1"


def test_every_contender_of_the_sandbox_subject_gives_right_outputs_and_the_tier_is_named(tmp_path):
    async def run():
        async with bench_sandbox.cases(tmp_path, peers=False) as cases:
            return [await measure(case, 1, passes=1) for case in cases]

    alone, together = asyncio.run(run())
    assert [one.failure for outcome in (alone, together) for one in outcome.series if one.failure] == []
    assert alone.case.note.startswith("Tier ")
    names = [one.contender.name for one in alone.series] + [absent.name for absent in alone.case.absent]
    assert {"sandbox.run", "python3 -I -S", "empty process", "bubblewrap + python3"} <= set(names)
    assert len(together.series[0].rounds[0]) == together.case.at_once


def test_bench_writes_the_same_report_as_text_json_and_page(tmp_path, capsys):
    status = main(["steps", "--smoke", "--report", str(tmp_path / "out"), "--folder", str(tmp_path)])
    assert status == 0
    shown = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert shown.startswith((tmp_path / "out" / "bench.txt").read_text())
    assert {case["name"] for case in document["cases"]} >= {"steps.alone", "steps.together"}
    for case in document["cases"]:
        for contender in case["contenders"]:
            assert contender["failure"] is None
            assert sum(map(len, contender["samples_us"])) == contender["samples"] > 0
            assert contender["name"] in (tmp_path / "out" / "bench.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "the measured files are gone"


def test_an_unknown_subject_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
    assert "steps" in capsys.readouterr().err
