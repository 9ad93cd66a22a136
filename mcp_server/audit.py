"""`agent-kernel audit`: what sandboxes did on a state folder, and whether its record is whole.

Reads the file itself, as one who may only read: while a kernel runs (what happened in its last moment is not there yet) and while none
does. For people a table, with --json one object a line, newest last in both. Nothing is made or changed, so there is nothing to lose.

Not here: what an event is and what the chain proves (agent_kernel.base.audit).
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agent_kernel.base import audit
from agent_kernel.base.facts import moment
from agent_kernel.base.store import look
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["report", "verified"]

T = TypeVar("T")

WIDTH_PIPED = 200
DIGEST_CHARS = 12
EMPTY = audit.Verdict(0, None, None, "", 0, 0, None, None)


def report(folder: Path, asked: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the newest events that fit; `asked` holds since, until, sandbox, run and limit as the command line has them."""
    since, until = asked["since"], asked["until"]
    wanted: dict[str, Any] = {
        "since": None if since is None else moment(since, "--since"),
        "until": None if until is None else moment(until, "--until", end=True),
        "sandbox_id": asked["sandbox"],
        "run_id": asked["run"],
        "limit": asked["limit"],
    }
    events = [audit.shown(event) for event in _look(folder, lambda db: audit.select(db, **wanted), [])]
    if as_json:
        for event in events:
            print(json.dumps(event))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_PIPED
    console.print(_table(events) if events else "No such event.")


def verified(folder: Path, *, as_json: bool) -> bool:
    """Print whether the chain is whole."""
    verdict = _look(folder, audit.verify, EMPTY)
    if as_json:
        print(json.dumps({"intact": verdict.problem is None, **verdict._asdict()}))
        return verdict.problem is None
    if verdict.problem is not None:
        print(f"BROKEN at event {verdict.broken_at}: {verdict.problem}. {verdict.events} before it are as written.")
        return False
    if not verdict.events:
        print(f"Nothing is recorded in {folder} yet.")
        return True
    print(f"Intact: {verdict.events} events, {verdict.first} to {verdict.last}. Head {verdict.head}")
    if verdict.unclean:
        print(
            f"{verdict.unclean} times a kernel ended without closing: what happened in its last moment may be missing."
            f" Where: agent-kernel audit --json --limit {verdict.events} --state {shlex.quote(str(folder))} | grep unclean"
        )
    if verdict.lost:
        print(f"{verdict.lost} refusals were not recorded, because events could not be written.")
    return True


def _look(folder: Path, query: Callable[[Any], T], nothing: T) -> T:
    """`nothing` where the file is older than the audit."""
    older = "SELECT count(*) = 0 FROM sqlite_master WHERE name = 'audit'"
    return look(folder, lambda db: nothing if db.execute(older).fetchone()[0] else query(db))


def _table(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("n", "at", "op", "outcome", "sandbox", "for", "exit", "wall_s", "cpu_s", "MB", "code", "more"):
        table.add_column(
            name, justify="right" if name in ("n", "exit", "wall_s", "cpu_s", "MB") else "left", no_wrap=name != "more"
        )
    for event in events:
        peak = event.get("peak_memory_bytes")
        by = " ".join(str(event[name]) for name in ("principal", "client", "run_id", "step") if name in event)
        cells = (
            event["n"], event["at"].replace("T", " ").removesuffix("Z"), event["op"], event.get("stopped_by", event["outcome"]),
            event.get("sandbox_id"), by, event.get("exit_code"), _seconds(event, "wall_s"), _seconds(event, "cpu_s"),
            None if peak is None else f"{peak / 1e6:.1f}", event.get("code_sha256", "")[:DIGEST_CHARS], _more(event),
        )  # fmt: skip
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    return table


def _seconds(event: Mapping[str, Any], name: str) -> str | None:
    return None if name not in event else f"{event[name]:.3f}"


def _more(event: Mapping[str, Any]) -> str:
    """What a person looks for in the few events that are not of the ordinary kind."""
    names = (
        "error",
        "packages",
        "allow_hosts",
        "files_out",
        "bytes_out",
        "unclean",
        "missing_after",
        "through",
        "refusals",
    )
    return ", ".join(f"{name} {event[name]}" for name in names if event.get(name))
