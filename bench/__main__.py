"""`agent-kernel bench [NAME...] [--peers] [--peers-dir DIR] [--rounds N] [--report DIR] [--folder DIR] [--smoke]`
`                   [--locomo FILE] [--longmemeval FILE]`

Runs subjects (`sandbox`) or single cases of them (`sandbox.burst`), prints the report and keeps it. Exit status: 0 measured, 1 something
failed or gave a wrong output, 2 wrong usage. A peer that is not installed is no failure; it is said in the report. No time makes it fail.
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
from lzma import LZMAError
from pathlib import Path
from typing import Any

import uvloop
from agent_kernel.base.store import file_system_of

from . import bench_mcp, bench_memory, bench_sandbox, bench_skills, bench_steps, peers
from .environment import MEMORY_FILE_SYSTEMS, doubts, look, steal_ticks
from .interleave import Case, Outcome, measure
from .report import Report, as_html, as_json, as_text, failures
from .retrieval import Corpus, read
from .survey import Table

__all__ = ["SUBJECTS", "main"]

SUBJECTS: dict[str, Callable[..., AbstractAsyncContextManager[list[Case | Table]]]] = {
    "sandbox": bench_sandbox.cases,
    "steps": bench_steps.cases,
    "memory": bench_memory.cases,
    "skills": bench_skills.cases,
    "mcp": bench_mcp.cases,
}

ROUNDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    command = shlex.join(["agent-kernel", "bench", *(sys.argv[1:] if argv is None else argv)])
    if options.peers:
        subjects = {name.partition(".")[0] for name in options.names or SUBJECTS}
        wanted = {
            "sandbox": peers.PINS,
            "memory": bench_memory.PINS,
            "skills": bench_skills.PINS,
            "mcp": bench_mcp.PINS,
        }
        pins = [pin for subject, some in wanted.items() if subject in subjects for pin in some]
        peers.install(options.peers_dir, _say, pins)
    with tempfile.TemporaryDirectory(prefix="agent-kernel-bench-", dir=options.folder or _disk()) as scratch:
        folder = Path(scratch)
        host = look(folder)
        before = steal_ticks()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcomes, tables = runner.run(_run(options, folder))
        after = steal_ticks()
        report = Report(
            made_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            command=command,
            host=host,
            doubts=doubts(host),
            load_after=os.getloadavg(),
            stolen_s=None if before is None or after is None else (after - before) / os.sysconf("SC_CLK_TCK"),
            outcomes=outcomes,
            tables=tables,
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


async def _run(options: argparse.Namespace, folder: Path) -> tuple[list[Outcome], list[Table]]:
    rounds = 1 if options.smoke else options.rounds
    wanted = options.names or list(SUBJECTS)
    outcomes, tables = [], []
    for name, subject in SUBJECTS.items():
        chosen = [one for one in wanted if one == name or one.startswith(f"{name}.")]
        if not chosen:
            continue
        (folder / name).mkdir()
        more: dict[str, Any] = {}
        if name == "memory":
            more = {"given": {"LoCoMo": options.locomo, "LongMemEval": options.longmemeval}, "smoke": options.smoke}
        if name in ("skills", "mcp"):
            more = {"smoke": options.smoke}
        async with subject(folder / name, peers=options.peers_dir if options.peers else None, **more) as cases:
            unknown = set(chosen) - {name} - {case.name for case in cases}
            if unknown:
                _say(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in cases)}")
                raise SystemExit(2)
            for case in cases:
                if isinstance(case, Table):
                    tables.append(case)
                elif name in chosen or case.name in chosen:
                    _say(f"{case.name}: {rounds} rounds of {', '.join(one.name for one in case.contenders)}")
                    outcomes.append(await measure(case.brief() if options.smoke else case, rounds))
    return outcomes, tables


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel bench", description="Measure the kernel beside controls and peers."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        type=_subject,
        help=f"{', '.join(SUBJECTS)}, or a case as `sandbox.burst`; without one: all",
    )
    parser.add_argument("--peers", action="store_true", help="also peers; installs those that package registries have")
    parser.add_argument(
        "--peers-dir",
        type=Path,
        metavar="DIR",
        default=peers.cache_folder(),
        help="where they are installed, and looked for (default: agent-kernel/peers in the user's cache folder)",
    )
    parser.add_argument("--locomo", type=_corpora, metavar="FILE", help="locomo10.json, for the recall of `memory`")
    parser.add_argument("--longmemeval", type=_corpora, metavar="FILE", help="longmemeval_s.json, for the same")
    parser.add_argument("--rounds", type=_above_zero, default=ROUNDS, help=f"rounds of each case ({ROUNDS})")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write bench.txt, bench.json, bench.html there")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the measured files lie; a real disk")
    parser.add_argument(
        "--smoke", action="store_true", help="a few samples only: does everything run and give right outputs?"
    )
    return parser


def _subject(text: str) -> str:
    if text.partition(".")[0] not in SUBJECTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no subject and no case; there are {', '.join(SUBJECTS)}")
    return text


def _corpora(text: str) -> list[Corpus]:
    try:
        return read(Path(text))
    except (OSError, ValueError, LookupError, TypeError, LZMAError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {type(error).__name__}: {error}") from None


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
