"""`agent-kernel memory`: work on what is remembered, from a terminal.

    import FILE_OR_DIR | - [--format F] [--trust LEVEL] [--dry-run]     take over memories from elsewhere, or from an export
    export [FILE | -]                                                   all of it, history included, as lines of JSON
    stats                                                               how much there is
    quarantine;  release, refuse ID... | --source S                     what waits for a person, and the decision

Where a kernel runs on the state folder it is asked through its control socket; else memory alone is opened for as long as it takes,
without sandboxes and without letting runs go on. Exit status: 0 done, 1 failed or in part, 2 wrong usage.

Guarantees
1. Nothing is dropped in silence: every line that was not stored is named on stderr with its file and number, in JSON in `problems`.
2. An export is of one moment, also of a kernel that runs, and readable for its owner only. It overwrites no file. One that was cut, by
   a kill, has no last line, and importing it says so.

Not here: reading files (readers.py), storing (importing.py), quarantine (quarantine.py).
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from agent_kernel import SCHEMA, open_memory
from agent_kernel.base import system
from agent_kernel.base.errors import HostError
from agent_kernel.base.facts import TRUST
from agent_kernel.base.store import snapshot
from agent_kernel.memory import exported

from . import control, importing, quarantine
from .places import state_folder
from .readers import FORMATS, STDIN, Found, Problem, Reading, read
from .values import wire

__all__ = ["main"]

BATCH_BYTES = 256 << 10
PROBLEMS_SHOWN = 200
PROBLEMS_MAX = 10_000
"""Kept; more are counted."""

Ask = Callable[..., Any]


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.verb in ("release", "refuse") and not asked.ids and asked.source is None:
        parser.error(f"{asked.verb}: say which: ID..., or --source S")
    return int(asked.act(asked, state_folder(asked.state)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel memory", description="Work on what is remembered.", allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", metavar="DIR", help="state folder, as for `agent-kernel mcp`")
    common.add_argument("--json", action="store_true", help="one JSON object on stdout")
    bring = verbs.add_parser("import", parents=[common], help="take over memories from elsewhere")
    bring.add_argument(
        "path", metavar="FILE_OR_DIR", help="server-memory's file, MEMORY.md, a Markdown folder, an export; - is stdin"
    )
    bring.add_argument("--format", choices=FORMATS, default="auto")
    bring.add_argument(
        "--trust", choices=TRUST, help="how far the file is trusted (default: agent; an export as it says)"
    )
    bring.add_argument("--dry-run", action="store_true", help="say what would be stored, store nothing")
    bring.set_defaults(act=_import)
    out = verbs.add_parser("export", parents=[common], help="all of it, history included, as lines of JSON")
    out.add_argument("file", metavar="FILE", nargs="?", default="-", help="a new file; - is stdout (default)")
    out.add_argument("--format", choices=("jsonl",), default="jsonl")
    out.set_defaults(act=_export)
    verbs.add_parser("stats", parents=[common], help="how much there is").set_defaults(act=_stats)
    quarantine.options(verbs, common, _quarantine)
    return parser


# --- the kernel that is asked


@contextlib.contextmanager
def asking(folder: Path) -> Iterator[Ask]:
    """Questions to the kernel that runs on the folder; else to its memory alone, opened as long as the block lasts."""
    if control.ask(folder, "status") is not None:
        yield lambda op, **fields: control.ask(folder, op, **fields)
        return
    with asyncio.Runner() as runner:
        opening = open_memory(folder)
        store, memory, limits = runner.run(opening.__aenter__())

        def ask(op: str, **fields: Any) -> Any:
            if op == "memory_import":
                return runner.run(importing.take(store, memory, limits, fields))
            if op == "memory_stats":
                return wire(runner.run(memory.stats()))
            return runner.run(quarantine.answer(memory, op, fields))

        try:
            yield ask
        finally:
            runner.run(opening.__aexit__(None, None, None))


def _quarantine(asked: argparse.Namespace, folder: Path) -> int:
    with asking(folder) as ask:
        quarantine.decide(asked, ask)
    return 0


# --- import


@dataclasses.dataclass(slots=True)
class _Outcome:
    added: int = 0
    known: int = 0
    problems: list[Problem] = dataclasses.field(default_factory=list)
    problems_more: int = 0
    before: Any = None
    """Where an export's lines begin, once the kernel has said it."""

    def wrong(self, problem: Problem) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        else:
            self.problems_more += 1


def _import(asked: argparse.Namespace, folder: Path) -> int:
    path = Path(asked.path).expanduser()
    if asked.path != STDIN and not path.exists() and not path.is_symlink():
        raise HostError("import.missing", f"{path} is not there. Name a file or a folder.")
    reading, outcome, told = Reading(), _Outcome(), 0
    with asking(folder) as ask:
        for batch in _batches(read(path, asked.format, reading)):
            if isinstance(batch, Problem):
                outcome.wrong(batch)
            else:
                _bring(ask, batch, asked, outcome)
            if not asked.json:
                told = _tell(outcome.problems, told)
    if asked.json:
        found = {**dataclasses.asdict(outcome), "problems": [problem._asdict() for problem in outcome.problems]}
        del found["before"]
        print(json.dumps({**dataclasses.asdict(reading), "dry_run": asked.dry_run, **found}))
    else:
        would = "would be " if asked.dry_run else ""
        passed = f" {reading.skipped} other files and folders were passed over." if reading.skipped else ""
        print(f"{reading.files} files read: {outcome.added} {would}stored, {outcome.known} were known.{passed}")
    return 1 if outcome.problems else 0


def _bring(ask: Ask, batch: Sequence[Found], asked: argparse.Namespace, outcome: _Outcome) -> None:
    trust = asked.trust or ("user" if batch[0].kind == "record" else "agent")
    done = ask(
        "memory_import", kind=batch[0].kind, batch=[found.value for found in batch], source=batch[0].file[-256:],
        trust=trust, dry_run=asked.dry_run, before=outcome.before,
    )  # fmt: skip
    outcome.before = outcome.before or done["before"]
    outcome.added += done["added"]
    outcome.known += done["known"]
    for at, why in done["refused"]:
        outcome.wrong(Problem(batch[at].file, batch[at].line, why))


def _batches(found: Iterable[Found | Problem]) -> Iterator[list[Found] | Problem]:
    """What follows one another and is of one kind and file, together, as far as a line of the control socket holds it."""
    batch: list[Found] = []
    size = 0
    for one in found:
        if isinstance(one, Problem):
            yield one
            continue
        weight = len(json.dumps(one.value))
        if batch and (
            (one.kind, one.file) != (batch[0].kind, batch[0].file)
            or len(batch) == importing.BATCH_MAX[one.kind]
            or size + weight > BATCH_BYTES
        ):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += weight
    if batch:
        yield batch


def _tell(problems: Sequence[Problem], told: int) -> int:
    """Print what is new of them, up to a number that a person reads."""
    for problem in itertools.islice(problems, told, PROBLEMS_SHOWN):
        where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        print("".join(char if char.isprintable() else " " for char in f"{where}: {problem.what}"), file=sys.stderr)
    if told < PROBLEMS_SHOWN <= len(problems):
        print(f"{PROBLEMS_SHOWN} problems are shown; --json names all of them.", file=sys.stderr)
    return len(problems)


# --- export and stats


def _export(asked: argparse.Namespace, folder: Path) -> int:
    if not (folder / "kernel.db").exists():
        raise HostError("state.missing", f"There is no kernel state in {folder}. Name its folder with --state.")
    count = 0
    with _written(asked.file) as out, asyncio.Runner() as runner:
        count = runner.run(_write_lines(folder, out))
    if asked.file != "-":
        print(json.dumps({"lines": count}) if asked.json else f"{count} lines written to {asked.file}.")
    return 0


async def _write_lines(folder: Path, out: IO[bytes]) -> int:
    """From the file of a kernel that runs, else with the folder taken, so that its file is mended and up to date."""
    running = control.ask(folder, "status") is not None
    async with contextlib.AsyncExitStack() as closing:
        if running:
            lines = exported(await closing.enter_async_context(snapshot(folder, SCHEMA)))
        else:
            _, memory, _ = await closing.enter_async_context(open_memory(folder))
            lines = memory.export()
        count = 0
        async for line in lines:
            out.write(line.encode() + b"\n")
            count += 1
        out.flush()
    return count


@contextlib.contextmanager
def _written(name: str) -> Iterator[IO[bytes]]:
    """A new file, gone again when it could not be written whole; or stdout."""
    if name == "-":
        yield sys.stdout.buffer
        return
    path = Path(name).expanduser().absolute()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.flags("O_CLOEXEC") | getattr(os, "O_BINARY", 0)
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise HostError("export.exists", f"{path} is there already. Name a new file.") from None
    except OSError as error:
        raise HostError("export.failed", f"{path} cannot be made: {error.strerror}. Name another file.") from error
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise HostError("export.failed", f"{path} cannot be written: {error.strerror}. Free some space.") from error
        raise


def _stats(asked: argparse.Namespace, folder: Path) -> int:
    if not (folder / "kernel.db").exists():
        raise HostError("state.missing", f"There is no kernel state in {folder}. Name its folder with --state.")
    with asking(folder) as ask:
        found = ask("memory_stats")
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<16} {value}")
    return 0
