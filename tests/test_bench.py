"""The bench: its statistics, its order, its verdict on outputs, and its report. No test looks at a time."""

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import time
from contextlib import AsyncExitStack

import pytest
from agent_kernel_bench import bench_sandbox, interleave, outside, peers
from agent_kernel_bench.__main__ import main
from agent_kernel_bench.controls import empty_process, plain_python
from agent_kernel_bench.environment import Host, doubts, look
from agent_kernel_bench.interleave import Absent, Case, Contender, Outcome, Series, measure, percentile, summarise
from agent_kernel_bench.plots import cumulative, spread
from agent_kernel_bench.questions import fresh, holding
from agent_kernel_bench.report import Report, as_html, as_json, as_text, failures
from agent_kernel_bench.survey import Table
from agent_kernel_bench.units import duration, times
from agent_kernel_bench.ways import Failed, Way, command, contender


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
    assert len(outcome.series[0].bursts) == 2
    assert all(
        burst >= max(five) for burst, five in zip(outcome.series[0].bursts, (samples[:5], samples[5:]), strict=True)
    )
    assert summarise(outcome)[0].per_second == pytest.approx(10 / (sum(outcome.series[0].bursts) / 1e9))


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
    assert page.count("<svg") == page.count("</svg>") == 3
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


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (123.4, "123"),
        (1.9, "1.90"),
        (0.1, "0.10"),
        (0.0251, "1/40"),
        (1 / 47, "1/47"),
        (1 / 27_199, "1/27k"),
        (None, "-"),
    ],
)
def test_ratios_are_shown_as_a_factor_or_as_a_fraction(ratio, shown):
    assert times(ratio) == shown


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


def python_way(text="import sys; exec(sys.argv[1])"):
    return command("python", "peer", "", lambda program: [sys.executable, "-I", "-S", "-c", text, program.text])


@pytest.mark.parametrize("ask", ["alone", "crowd"])
def test_a_command_has_answered_when_its_output_and_its_status_are_there(ask):
    program = fresh()
    assert asyncio.run(getattr(python_way(), ask)(program)) == program.expected
    with pytest.raises(Failed, match="exit 3: 'so'"):
        asyncio.run(getattr(python_way("print('so'); raise SystemExit(3)"), ask)(program))
    reads = command("stdin", "peer", "", lambda _: [sys.executable, "-I", "-S", "-"], stdin=True)
    assert asyncio.run(getattr(reads, ask)(program)) == program.expected
    assert empty_process().wrong(1) == "exit 1"


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_no_two_programs_are_alike_and_none_holds_its_answer(language):
    programs = [fresh(language) for _ in range(50)]
    assert len({program.expected for program in programs}) == 50
    assert not any(program.expected.strip() in program.text for program in programs)


@pytest.mark.parametrize("shape", [{}, {"at_once": 3}, {"at_once": 2, "slice_s": 0.01}])
def test_a_stale_answer_voids_the_row(shape):
    kept = []

    async def cached(program):
        kept.append(program.expected)
        return kept[0]

    way = Way("cache", "peer", "", cached, cached)
    case = Case("t", "?", [contender(plain_python()), contender(way)], base="python3 -I -S", passes=2, **shape)
    python, cache = asyncio.run(measure(case, 1)).series
    assert python.failure is None
    assert cache.failure.startswith(f"wrong output: {kept[0]!r}, not ")


def test_calls_that_were_due_while_the_caller_was_held_up_are_charged_for_it():
    async def held():
        time.sleep(0.02)

    case = Case(
        "t", "?", [Contender("A", "subject", "", held, lambda _: None)], "A", passes=1, at_once=4, spaced_s=1e-3
    )
    [samples] = asyncio.run(measure(case, 1)).series[0].rounds
    assert len(samples) == 4
    assert max(samples) > 4 * 20e6 - 3 * 1e6, "from its due moment, behind others that hold the loop for 20 ms each"


def test_in_closed_loops_each_client_has_one_question_open_and_all_answers_count():
    open_now, most = set(), []

    async def ask(number):
        open_now.add(number)
        most.append(len(open_now))
        await asyncio.sleep(0)
        open_now.remove(number)
        return number

    numbers = iter(range(10**9))
    act = Contender(
        "A", "subject", "", ask, lambda output, n: None if output == n else "?", fresh=lambda: (next(numbers),)
    )
    case = Case("t", "?", [act], base="A", passes=3, at_once=2, slice_s=0.01)
    outcome = asyncio.run(measure(case, 1))
    [one] = outcome.series
    assert one.failure is None
    assert max(most) == 2
    assert len(one.rounds[0]) == 3, "one sample a slice"
    assert len(one.answers) > 3
    assert sum(one.rounds[0]) / 3 < 10e6, "a slice's length by its answers"


def test_what_a_turn_must_find_is_waited_for_before_its_clock():
    order = []

    async def ready():
        order.append("ready")
        await asyncio.sleep(0.02)

    async def ask(number):
        order.append(number)

    numbers = iter(range(100))
    act = Contender("A", "subject", "", ask, lambda *_: None, fresh=lambda: (next(numbers),), ready=ready)
    [samples] = asyncio.run(measure(Case("t", "?", [act], base="A", passes=4), 1)).series[0].rounds
    assert order == [one for number in range(5) for one in ("ready", number)]
    assert min(samples) < 20e6, "20 ms of waiting are not in it"


def test_a_slow_peer_is_asked_seldom_left_out_of_bursts_and_both_are_said(monkeypatch):
    monkeypatch.setattr(interleave, "SLOW_S", -1.0)
    log = []
    slow = Contender("slow", "peer", "", counter("slow", log).once, lambda _: None)
    alone = asyncio.run(measure(Case("t", "?", [counter("A", log), slow], base="A", passes=8), 2))
    assert [len(samples) for samples in alone.series[1].rounds] == [2, 2]
    assert [len(samples) for samples in alone.series[0].rounds] == [8, 8]
    assert "each 4th pass only: slow" in as_text(reported(alone))
    burst = asyncio.run(measure(Case("t", "?", [counter("A", log), slow], base="A", passes=1, at_once=3), 1))
    for face in (as_text(reported(burst)), as_html(reported(burst))):
        assert re.search("left out: one call takes", face, re.IGNORECASE)
    assert failures(reported(burst)) == []


def test_the_distribution_has_a_point_for_each_value_and_ends_at_all():
    assert cumulative([30, 10, 20, 10]) == [(10, 0.5), (20, 0.75), (30, 1.0)]
    assert cumulative([7]) == [(7, 1.0)]


def test_labels_do_not_touch_and_none_falls_off_the_plot():
    placed = spread([90, 10, 95, 99, 12, 98], bottom=100, least=15)
    ordered = sorted(placed)
    assert all(below - above >= 15 for above, below in itertools.pairwise(ordered))
    assert max(placed) <= 100
    assert [index for index, _ in sorted(enumerate(placed), key=lambda one: one[1])] == [1, 4, 0, 2, 5, 3]


# --- what is seen from outside


def test_a_plain_interpreter_is_seen_without_any_layer():
    seen = asyncio.run(bench_sandbox.look_at(plain_python())).seen
    assert seen.seccomp == outside.look("self").seccomp, "ours: none outside a container"
    assert (seen.own, seen.limits, seen.cgroup, seen.unreadable) == ((), (), False, ())
    assert seen.capabilities == outside.look("self").capabilities


def test_layers_of_a_sandbox_are_read_from_the_very_process_that_runs_the_program(tmp_path):
    async def run():
        async with bench_sandbox.opened(tmp_path / "state") as sandbox:
            return sandbox.tier, await bench_sandbox.look_at(bench_sandbox.ours(sandbox))

    tier, one = asyncio.run(run())
    assert one.seen.seccomp.startswith("filter")
    assert one.seen.no_new_privs is True
    assert not one.seen.capabilities.strip("0")
    assert set(one.seen.limits) >= {"files", "processes"}
    assert set(one.seen.own) >= ({"user", "mnt", "pid", "net", "ipc", "uts"} if tier == "full" else set())
    if os.getuid() == 0:
        assert one.seen.uid != 0
        assert one.memory.processes == 2, "the guest and its init"
        assert one.memory.pss_bytes > one.memory.private_dirty_bytes > 0


def test_the_process_that_is_looked_at_is_the_one_that_runs_the_program_and_no_later_one():
    program = holding()
    argv = [sys.executable, "-u", "-I", "-S", "-c"]
    with subprocess.Popen([*argv, program.text], stdout=subprocess.PIPE) as runs:
        assert runs.stdout.readline() == program.expected.encode()
        with subprocess.Popen([*argv, "input(1)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as later:
            assert later.stdout.read(1) == b"1"
            found = None
            while found is None and runs.poll() is None:
                found = outside.find_by_threads(program)
            later.communicate(b"\n")
    assert found == runs.pid


def test_a_program_that_ends_unseen_is_said_to_be_unseen():
    async def at_once(program):
        return program.expected

    one = asyncio.run(bench_sandbox.look_at(Way("quick", "peer", "", at_once, at_once)))
    assert (one.seen, one.memory) == (None, None)
    assert holding().threads > 1


# --- peers


def test_every_peer_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    async def find():
        async with AsyncExitStack() as stack:
            return [await peers.bubblewrap(), *await peers.ways(tmp_path, stack)]

    found = asyncio.run(find())
    assert {one.name for one in found} == {
        "bubblewrap + python3",
        "docker",
        "docker + gVisor",
        *(p.peer for p in peers.PINS),
    }
    assert all(isinstance(one, Absent) and one.why and one.get for one in found)


def test_a_registry_is_asked_only_for_what_is_not_there_in_its_pinned_version(tmp_path, monkeypatch):
    there, other = peers.Pin("a", "npm", "@x/a", "1.2.3"), peers.Pin("b", "npm", "b", "2.0.0")
    monkeypatch.setattr(peers, "PINS", (there, other))
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    for package, version in (("@x/a", "1.2.3"), ("b", "1.9.9")):
        folder = tmp_path / "node" / "node_modules" / package
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"version": version}))
    said = []
    peers.install(tmp_path, said.append)
    assert not any("@x/a" in line for line in said)
    assert any(line.startswith("NOT INSTALLED  b 2.0.0: npm is not installed") for line in said)


# --- the subject


def test_every_case_of_the_sandbox_gives_right_outputs_and_the_tier_is_named(tmp_path):
    async def run():
        async with bench_sandbox.cases(tmp_path, peers=None) as cases:
            timed = [await measure(case.brief(), 1) for case in cases if isinstance(case, Case)]
            return timed, [table for table in cases if isinstance(table, Table)]

    outcomes, [layers, memory] = asyncio.run(run())
    assert [one.failure for outcome in outcomes for one in outcome.series if one.failure] == []
    names = {"alone", "staggered", "burst", "rate1", "rate2"}
    assert {outcome.case.name for outcome in outcomes} == {f"sandbox.{name}" for name in names}
    alone, burst = outcomes[0], outcomes[2]
    assert alone.case.note.startswith("Tier ")
    shown = [one.contender.name for one in alone.series] + [absent.name for absent in alone.case.absent]
    assert {"sandbox.run, pool hit", "sandbox.run, pool miss", "python3 -I -S", "empty process", "nothing"} <= set(
        shown
    )
    assert "bubblewrap + python3" in shown
    assert len(burst.series[0].rounds[0]) == burst.case.at_once * burst.case.passes
    for table in (layers, memory):
        wanted = ["sandbox.run", "sandbox.run, no pool", "python3 -I -S"]
        assert [row[0] for row in table.rows if row[0] in wanted] == wanted
    assert layers.rows[0][1].startswith("filter")


def test_bench_writes_the_same_report_as_text_json_and_page(tmp_path, capsys):
    status = main(["steps", "--smoke", "--report", str(tmp_path / "out"), "--folder", str(tmp_path)])
    assert status == 0
    shown = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert shown.startswith((tmp_path / "out" / "bench.txt").read_text())
    assert {case["name"] for case in document["cases"]} >= {"steps.alone", "steps.together"}
    for case in document["cases"]:
        for one in case["contenders"]:
            assert one["failure"] is None
            assert sum(map(len, one["samples_us"])) == one["samples"] > 0
            assert one["name"] in (tmp_path / "out" / "bench.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "the measured files are gone"


def test_an_unknown_subject_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
    assert "steps" in capsys.readouterr().err


def test_an_unknown_case_is_wrong_usage_and_the_known_ones_are_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["steps.nonsense", "--folder", str(tmp_path)])
    assert caught.value.code == 2
    assert "steps.alone" in capsys.readouterr().err
