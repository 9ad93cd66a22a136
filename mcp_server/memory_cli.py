"""`agent-kernel memory`: work on what is remembered, from a terminal.

    import FILE_OR_DIR [--format F] [--trust LEVEL] [--dry-run]     take over memories from elsewhere
    quarantine;  release, refuse ID... | --source S                 what waits for a person, and the decision

Where a kernel runs on the state folder it is asked through its control socket; else memory alone is opened for as long as it takes,
without sandboxes and without letting runs go on. Exit status: 0 done, 1 failed or in part, 2 wrong usage.

Guarantees
1. Nothing is dropped in silence: every line that was not stored is named on stderr with its file and number, in JSON in `problems`.

Not here: reading files (readers.py), storing (importing.py), quarantine (quarantine.py).
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent_kernel import open_memory
from agent_kernel.base.errors import HostError
from agent_kernel.base.facts import TRUST

from . import control, importing, quarantine
from .places import state_folder
from .readers import FORMATS, Found, Problem, Reading, read

__all__ = ["main"]

BATCH_BYTES = 256 << 10
PROBLEMS_SHOWN = 200
PROBLEMS_MAX = 10_000
"""Kept; more are counted."""

Ask = Callable[..., Any]


def main(argv: Sequence[str]) -> int:
    asked = _parser().parse_args(argv)
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
        "path", metavar="FILE_OR_DIR", help="server-memory's file, MEMORY.md, a Markdown folder, JSON Lines"
    )
    bring.add_argument("--format", choices=FORMATS, default="auto")
    bring.add_argument("--trust", choices=TRUST, default="agent", help="how far the file is trusted (default: agent)")
    bring.add_argument("--dry-run", action="store_true", help="say what would be stored, store nothing")
    bring.set_defaults(act=_import)
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

    def wrong(self, problem: Problem) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        else:
            self.problems_more += 1


def _import(asked: argparse.Namespace, folder: Path) -> int:
    path = Path(asked.path).expanduser()
    if not path.exists() and not path.is_symlink():
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
        print(json.dumps({**dataclasses.asdict(reading), "dry_run": asked.dry_run, **found}))
    else:
        would = "would be " if asked.dry_run else ""
        passed = f" {reading.skipped} other files and folders were passed over." if reading.skipped else ""
        print(f"{reading.files} files read: {outcome.added} facts {would}stored, {outcome.known} were known.{passed}")
    return 1 if outcome.problems else 0


def _bring(ask: Ask, batch: Sequence[Found], asked: argparse.Namespace, outcome: _Outcome) -> None:
    done = ask(
        "memory_import", kind=batch[0].kind, batch=[found.value for found in batch], source=batch[0].file[-256:],
        trust=asked.trust, dry_run=asked.dry_run,
    )  # fmt: skip
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
            or len(batch) == importing.BATCH_MAX
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
