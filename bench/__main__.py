"""`agent-kernel bench [NAME...] [--peers] [--rounds N] [--report DIR] [--folder DIR] [--smoke]`: run the subjects, print and keep the report.

Exit status: 0 measured, 1 something failed or gave a wrong output, 2 wrong usage. A peer that is not installed is no failure; it is
said in the report. No time makes it fail.
"""

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from agent_kernel.base.store import file_system_of

from . import bench_sandbox, bench_steps
from .environment import MEMORY_FILE_SYSTEMS, doubts, look, steal_ticks
from .interleave import Case, Outcome, measure
from .report import Report, as_html, as_json, as_text, failures

__all__ = ["SUBJECTS", "main"]

SUBJECTS: dict[str, Callable[..., AbstractAsyncContextManager[list[Case]]]] = {
    "sandbox": bench_sandbox.cases,
    "steps": bench_steps.cases,
}

ROUNDS = 5
SMOKE_PASSES = 2


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    command = shlex.join(["agent-kernel", "bench", *(sys.argv[1:] if argv is None else argv)])
    with tempfile.TemporaryDirectory(prefix="agent-kernel-bench-", dir=options.folder or _disk()) as scratch:
        folder = Path(scratch)
        host = look(folder)
        before = steal_ticks()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes = runner.run(_run(options, folder))
        after = steal_ticks()
        report = Report(
            made_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            command=command,
            host=host,
            doubts=doubts(host),
            load_after=os.getloadavg(),
            stolen_s=None if before is None or after is None else (after - before) / os.sysconf("SC_CLK_TCK"),
            outcomes=outcomes,
        )
    print(as_text(report), end="")
    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("bench.txt", as_text(report)),
            ("bench.json", as_json(report)),
            ("bench.html", as_html(report)),
        ):
            (options.report / name).write_text(text, encoding="utf8")
            print(f"written: {options.report / name}")
    problems = failures(report)
    for problem in problems:
        print(f"FAILED  {problem}", file=sys.stderr)
    return 1 if problems else 0


async def _run(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    rounds = 1 if options.smoke else options.rounds
    outcomes = []
    for name in options.names or SUBJECTS:
        (folder / name).mkdir()
        async with SUBJECTS[name](folder / name, peers=options.peers) as cases:
            for case in cases:
                print(
                    f"{case.name}: {rounds} rounds of {', '.join(one.name for one in case.contenders)}", file=sys.stderr
                )
                outcomes.append(await measure(case, rounds, passes=SMOKE_PASSES if options.smoke else None))
    return outcomes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel bench", description="Measure the kernel beside controls and peers."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", type=_subject, help=f"{', '.join(SUBJECTS)}; without one: all"
    )
    parser.add_argument("--peers", action="store_true", help="also peers that need packages of their own")
    parser.add_argument("--rounds", type=_above_zero, default=ROUNDS, help=f"rounds of each case ({ROUNDS})")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write bench.txt, bench.json, bench.html there")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the measured files lie; a real disk")
    parser.add_argument(
        "--smoke", action="store_true", help="a few samples only: does everything run and give right outputs?"
    )
    return parser


def _subject(text: str) -> str:
    if text not in SUBJECTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no subject; there are {', '.join(SUBJECTS)}")
    return text


def _above_zero(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _disk() -> Path:
    """The temporary folder, or the home folder where the temporary one is memory: a sync there would cost nothing."""
    temporary = Path(tempfile.gettempdir())
    return Path.home() if file_system_of(temporary) in MEMORY_FILE_SYSTEMS else temporary


if __name__ == "__main__":
    sys.exit(main())
