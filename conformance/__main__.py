"""`agent-kernel conformance ...`, also `python -m agent_kernel_conformance ...`: list, run, explain, twins, spec.

    list [--area A]                          the clauses
    run  [--clause ID]... [--area A]... [--profile V] [--report text|json|junit] [--out FILE] [--baseline FILE] -- COMMAND
    explain CLAUSE [--last FILE]             one clause: its text, how it is observed, what the report FILE says of it
    twins [--clause ID]... [--area A]... -- COMMAND      whether every check can fail: each broken twin of a conforming server
    spec [--check]                           the clause list of SPEC.md, or whether SPEC.md holds it word for word

Exit status: 0 conforms, 1 a MUST failed or the baseline is stale, 2 wrong usage. stdout carries the report only.
"""

import argparse
import asyncio
import inspect
import json
import signal
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path

from . import spec
from .broken import TWINS
from .broken.trial import own_verdicts
from .registry import AREAS, CHECKS, CLAUSES, NEEDS, Clause, profile
from .report import FORMS, Report, load_baseline
from .suite import Verdict, run_suite

__all__ = ["main"]


def main(argv: list[str]) -> int:
    command: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1 :]
    parser = _parser()
    try:
        asked = parser.parse_args(argv)
    except SystemExit as leave:  # argparse printed its reason, or the help
        return int(leave.code or 0)
    try:
        if asked.verb == "run":
            return _run(asked, command)
        if asked.verb == "twins":
            return _twins(asked, command)
        return {"list": _list, "explain": _explain, "spec": _spec}[asked.verb](asked)
    except (ValueError, OSError) as error:
        print(f"agent-kernel conformance {asked.verb}: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):  # the lanes have put their servers and folders away
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel conformance", description="Check any MCP server against the agent kernel's contract.",
        epilog="A COMMAND speaks MCP on stdio; {state} in it stands for a fresh folder for all that must last "
        "(AGENT_KERNEL_HOME holds it too); it is killed with SIGKILL and started again.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("list", help="the clauses")
    listed.add_argument("--area", action="append", choices=AREAS)
    usage = "agent-kernel conformance %s [options] -- COMMAND [ARGUMENT]..."
    run = verbs.add_parser("run", usage=usage % "run", help="check a server: run [options] -- COMMAND")
    twins = verbs.add_parser("twins", usage=usage % "twins", help="check the checks: twins [options] -- COMMAND")
    for chooses in (run, twins):
        chooses.add_argument("--clause", action="append", metavar="ID")
        chooses.add_argument("--area", action="append", choices=AREAS)
    run.add_argument("--profile", metavar="VERSION", help="the frozen clauses of a release")
    run.add_argument("--report", choices=FORMS, default="text")
    run.add_argument("--out", type=Path, metavar="FILE", help="write the report there instead of to stdout")
    run.add_argument("--baseline", type=Path, metavar="FILE", help="TOML of expected failures")
    explain = verbs.add_parser("explain", help="one clause")
    explain.add_argument("clause")
    explain.add_argument("--last", type=Path, metavar="FILE", help="a report made with --report json")
    written = verbs.add_parser("spec", help="the clause list of SPEC.md")
    written.add_argument("--check", action="store_true", help="exit 1 when SPEC.md does not hold it")
    return parser


def _chosen(ids: Sequence[str] | None, areas: Sequence[str] | None, version: str | None = None) -> list[Clause]:
    for id_ in ids or ():
        if id_ not in CLAUSES:
            raise ValueError(f"there is no clause {id_!r}; `list` shows them all")
        if not CLAUSES[id_].observable:
            raise ValueError(f"{id_} is not run: {CLAUSES[id_].excluded or CLAUSES[id_].status}")
    try:
        frozen = profile(version) if version else None
    except FileNotFoundError:
        raise ValueError(f"there is no profile {version!r}") from None
    return [
        clause
        for clause in CLAUSES.values()
        if clause.observable
        and (not ids or clause.id in ids)
        and (not areas or clause.area in areas)
        and (frozen is None or clause.id in frozen)
    ]


def _list(asked: argparse.Namespace) -> int:
    for clause in CLAUSES.values():
        if not asked.area or clause.area in asked.area:
            mark = "" if clause.observable else f"  [not run: {clause.excluded or clause.status}]"
            print(f"{clause.level:<7}{clause.id:<48}{clause.text}{mark}")
    return 0


def _subject(asked: argparse.Namespace, command: list[str], version: str | None = None) -> list[Clause]:
    if not command:
        raise ValueError("which server? Put its command behind `--`, for example: -- agent-kernel mcp --standalone")
    clauses = _chosen(asked.clause, asked.area, version)
    if not clauses:
        raise ValueError("these options choose no clause")
    return clauses


def _run(asked: argparse.Namespace, command: list[str]) -> int:
    clauses = _subject(asked, command, asked.profile)
    expected = load_baseline(asked.baseline) if asked.baseline else {}
    begun = time.monotonic()
    verdicts = asyncio.run(_until_told(run_suite(command, clauses, _tell if sys.stderr.isatty() else lambda _: None)))
    report = Report(command, " ".join(command), verdicts, expected, time.monotonic() - begun)
    text = report.render(asked.report)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf8")
    else:
        print(text)
    return report.exit_status


async def _until_told(work: Awaitable[list[Verdict]]) -> list[Verdict]:
    """SIGTERM ends the work as Ctrl-C does: with its servers stopped and its folders gone."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _twins(asked: argparse.Namespace, command: list[str]) -> int:
    clauses = [clause for clause in _subject(asked, command) if clause.id in TWINS]
    verdicts = asyncio.run(_until_told(own_verdicts(command, clauses)))
    missed = [verdict for verdict in verdicts if verdict.status not in ("fail", "warn")]
    for verdict in missed:
        lie = TWINS[verdict.clause].lie
        print(f"{verdict.status:<11}{verdict.clause}: a server that {lie}  {verdict.detail}")
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} broken twins were found out")
    return 1 if missed else 0


def _tell(verdict: Verdict) -> None:
    print(f"{verdict.status:<11}{verdict.clause}  {verdict.elapsed_s:.1f} s", file=sys.stderr)


def _explain(asked: argparse.Namespace) -> int:
    clause = CLAUSES.get(asked.clause)
    if clause is None:
        raise ValueError(f"there is no clause {asked.clause!r}; `list` shows them all")
    print(f"{clause.id}\n{clause.level}, since {clause.since}, {clause.status}\n\n{clause.text}\n")
    if clause.excluded:
        print(f"not observed: {clause.excluded}")
    else:
        check = CHECKS[clause.id]
        print(f"observed: {clause.observe}")
        print(f"check: {inspect.getsourcefile(check)}:{inspect.getsourcelines(check)[1]}")
    if clause.id in TWINS:
        print(f"fails: a server that {TWINS[clause.id].lie}")
    for need in clause.needs:
        print(f"needs {need}: {NEEDS[need]}")
    if clause.optional:
        print(f"applies only when the server declares {clause.optional}")
    if asked.last:
        table = json.loads(asked.last.read_text(encoding="utf8"))
        last = [v for v in table["verdicts"] if v["clause"] == clause.id]
        told = f"{last[0]['status']} {last[0]['detail']}".strip() if last else "not run"
        print(f"last run ({table['server']}): {told}")
    return 0


def _spec(asked: argparse.Namespace) -> int:
    if not asked.check:
        print(spec.clause_list(), end="")
        return 0
    missing = spec.drift()
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
