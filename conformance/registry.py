"""The clauses (clauses/*.toml), the checks that observe them, and how a check says what it saw.

A clause is one sentence of the contract:

    [clause."durable.step.runs-once"]
    level = "MUST"                  MUST | SHOULD | MAY
    text = "A step whose result is recorded is not executed again after a restart."
    since = "0.1"                   the contract's version that brought it
    observe = "what the check does and looks at"
    needs = ["process.kill"]        what the check asks of the suite, see NEEDS
    optional = "resources"          the server capability without which the clause does not apply (na)
    tool = "sandbox_export"         likewise, a tool that is there only where the operator allowed something
    status = "active"               active | draft | retired; only active clauses are run
    superseded_by = "other.id"      on retired ones
    excluded = "reason"             why it cannot be observed from outside; it then has no check

Guarantees
1. An id is `area.feature.behaviour`, its area is the name of its file, and it is never renumbered or used again.
2. `@check` with an unknown id, or a second check of one id, fails at import: a clause and its check cannot drift apart.
3. One id for pass and for fail. A check returns (pass), raises Failed, or raises Untestable; nothing else is a verdict.

Not here: running checks (suite.py), speaking to a server (subject.py).
"""

import re
import tomllib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "AREAS", "CHECKS", "CLAUSES", "NEEDS", "Check", "Clause", "Failed", "Untestable", "check", "expect", "profile",
]  # fmt: skip

AREAS = ("protocol", "sandbox", "durable", "memory", "skills", "orchestration")
LEVELS = ("MUST", "SHOULD", "MAY")
STATUSES = ("active", "draft", "retired")
NEEDS = {
    "process.kill": "the check is an async generator; at each `yield` the server is killed with SIGKILL and started again",
    "process.fresh": "the check starts a server of its own on an empty state folder",
    "host.files": "suite and server see the same file system",
    "host.processes": "suite and server see the same processes (/proc)",
}
HERE = Path(__file__).parent
_ID = re.compile(r"[a-z]+(\.[a-z0-9]+(-[a-z0-9]+)*){2}")

_FIELDS = {
    "level": str, "text": str, "since": str, "observe": str, "needs": list,
    "optional": str, "tool": str, "status": str, "superseded_by": str, "excluded": str,
}  # fmt: skip


class Failed(Exception):
    """The server was seen to break the clause; the text says what was seen."""


class Untestable(Exception):
    """The check could not get far enough to see. Counts as a failure of the clause's level."""


@dataclass(frozen=True, slots=True)
class Clause:
    id: str
    level: str
    text: str
    since: str
    observe: str
    needs: tuple[str, ...] = ()
    optional: str = ""
    tool: str = ""
    status: str = "active"
    superseded_by: str = ""
    excluded: str = ""

    @property
    def area(self) -> str:
        return self.id.partition(".")[0]

    @property
    def observable(self) -> bool:
        return self.status == "active" and not self.excluded


Check = Callable[[Any], Awaitable[None]] | Callable[[Any], AsyncGenerator[None, None]]


def parse(area: str, text: str) -> dict[str, Clause]:
    """The clauses of one file; ValueError names the first thing wrong with it."""
    clauses = {}
    for id_, table in tomllib.loads(text)["clause"].items():
        if not _ID.fullmatch(id_) or id_.partition(".")[0] != area:
            raise ValueError(f"clauses/{area}.toml: the id {id_!r} is not {area}.feature.behaviour")
        for name, value in table.items():
            if type(value) is not _FIELDS.get(name):
                raise ValueError(f"{id_}: {name!r} is not a field of a clause, or not of its type")
        table["needs"] = tuple(table.get("needs", ()))
        clause = Clause(id=id_, **table)
        if clause.level not in LEVELS or clause.status not in STATUSES or not set(clause.needs) <= NEEDS.keys():
            raise ValueError(f"{id_}: unknown level, status or need")
        clauses[id_] = clause
    return clauses


def _load() -> dict[str, Clause]:
    clauses: dict[str, Clause] = {}
    for area in AREAS:
        clauses |= parse(area, (HERE / "clauses" / f"{area}.toml").read_text(encoding="utf8"))
    return clauses


CLAUSES: dict[str, Clause] = _load()
CHECKS: dict[str, Check] = {}


def check(clause_id: str) -> Callable[[Check], Check]:
    """Bind a function to the clause that it observes."""
    clause = CLAUSES.get(clause_id)
    if clause is None:
        raise KeyError(f"no clause {clause_id!r} in clauses/*.toml")
    if clause_id in CHECKS or clause.excluded:
        raise ValueError(f"{clause_id} has a check already, or is excluded")

    def bind(function: Check) -> Check:
        CHECKS[clause_id] = function
        return function

    return bind


def expect(truth: object, seen: str) -> None:
    if not truth:
        raise Failed(seen)


def profile(version: str) -> tuple[str, ...]:
    """The frozen ids of one release; a growing suite never fails a server of an older profile after the fact."""
    ids = tomllib.loads((HERE / "profiles" / f"{version}.toml").read_text(encoding="utf8"))["clauses"]
    return tuple(ids)
