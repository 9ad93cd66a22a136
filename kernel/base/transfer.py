"""One principal's memory as lines of JSON, and back: the whole of it, history included.

    {"format": "agent-kernel-memory", "version": 1}
    {"type": "fact", "id": ..., "text": ..., "kind", "key", "conversation", "speaker", "tags", "source", "trust", "client", "run_id", "step",
        "time", "recorded_at", "valid_to", "closed_at", "superseded_by", "retracted_at", "reason", "expires_at", "confirmed"}
    {"type": "held", ...}      a fact in quarantine
    {"type": "note", "label", "text", "version", "updated_at"}
    {"type": "log", "op", "id", "at", "trust", "client", "run_id", "step"}
    {"type": "end", "facts": n, "held": n, "notes": n, "log": n}

Facts, held ones and the log stand in the order in which they came; what is null or empty is left out. A time is RFC 3339 where that
gives the same number back, else Unix seconds. What follows from the rest is not written: row numbers, neighbours, the index, sizes.

Guarantees
1. The lines of a memory, read into an empty one, give the same lines again, byte for byte.
2. Reading lines a second time changes nothing. What is here already is never overwritten: of a known id only an end is taken over that
   the line knows and this memory does not; another text under a known id is refused.
3. A line is distrusted: types, sizes and times are checked as those of a new fact, trust is at most what the reader allows.
4. No statement here reads or changes a row of another principal; an id that another one has is replaced by a new one.

Not here: files and batches (mcp_server), commits (store.py). Functions here take an open connection and commit nothing.
"""

import dataclasses
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from . import quarantine, recall, records
from .errors import ArgumentError, Conflict, LimitExceeded
from .facts import FIELDS, TRUST, Item, item_of, moment, sane, trust_of
from .limits import Limits
from .quarantine import Held
from .records import Author, Row
from .store import Transaction

__all__ = ["DERIVED", "FACT", "FORMAT", "Before", "Reader", "lines"]

FORMAT = {"format": "agent-kernel-memory", "version": 1}
FACT = (
    "id", "text", "kind", "key", "conversation", "speaker", "tags", "source", "trust", "client", "run_id", "step", "dated", "valid_from",
    "recorded_at", "valid_to", "closed_at", "superseded_by", "retracted_at", "reason", "expires_at", "confirmed",
)  # fmt: skip
"""Columns that are written; `dated` and `valid_from` together are the field `time`."""
DERIVED = ("n", "principal", "scope", "before", "words", "asks", "pieces", "ordinal", "octets", "digest")
TIMES = ("time", "recorded_at", "valid_to", "closed_at", "retracted_at", "expires_at")
ENDS = ("valid_to", "closed_at", "superseded_by", "retracted_at", "reason")
LOG = ("op", "id", "at", "trust", "client", "run_id", "step")
ID = re.compile(r"mem_[a-z2-7]{12}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- out


def lines(db: sqlite3.Connection, principal: str) -> Iterator[str]:
    """Every line, without its line end, as it is read: nothing is held but one row."""
    counts = dict.fromkeys(("facts", "held", "notes", "log"), 0)
    yield json.dumps(FORMAT)
    for row in db.execute(f"SELECT {', '.join(FACT)} FROM memory WHERE principal=? ORDER BY n", (principal,)):  # noqa: S608
        counts["facts"] += 1
        yield _line("fact", _fact(dict(zip(FACT, row, strict=True))))
    for held in quarantine.chosen(db, principal, ()):
        counts["held"] += 1
        yield _line("held", _held(held))
    for label, text, version, at in db.execute(
        "SELECT label, text, version, updated_at FROM block WHERE principal=? ORDER BY label", (principal,)
    ):
        counts["notes"] += 1
        yield _line("note", {"label": label, "text": text, "version": version, "updated_at": _when(at)})
    for row in db.execute(f"SELECT {', '.join(LOG)} FROM memory_log WHERE principal=? ORDER BY n", (principal,)):  # noqa: S608
        counts["log"] += 1
        entry = dict(zip(LOG, row, strict=True))
        trust = None if entry["trust"] is None else TRUST[entry["trust"]]
        yield _line("log", {**entry, "at": _when(entry["at"]), "trust": trust})
    yield _line("end", counts)


def _line(kind: str, fields: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in fields.items() if name == "text" or value not in (None, "", [])}
    return json.dumps({"type": kind, **kept}, ensure_ascii=False, separators=(",", ":"))


def _fact(row: dict[str, Any]) -> dict[str, Any]:
    told = {**row, "tags": json.loads(row["tags"]), "trust": TRUST[row["trust"]], "confirmed": row["confirmed"] or None}
    time, dated = told.pop("valid_from"), told.pop("dated")
    told["time"] = time if dated else None
    return {**told, **{name: _when(told[name]) for name in TIMES}}


def _held(held: Held) -> dict[str, Any]:
    item = {
        name: value
        for name, value in dataclasses.asdict(held.item).items()
        if name == "text" or value not in (None, (), "")
    }
    item |= {name: _when(item[name]) for name in ("time", "expires_at") if name in item}
    rest = {name: value for name, value in held._asdict().items() if name != "item"}
    return {**rest, "trust": TRUST[held.trust], "recorded_at": _when(held.recorded_at), "item": item}


def _when(seconds: float | None) -> str | float | None:
    """RFC 3339 where reading it gives the same number."""
    if seconds is None:
        return None
    shown = (EPOCH + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    return shown if moment(shown, "time") == seconds else seconds


# --- in


class Before(NamedTuple):
    """The newest rows that were there when reading began: what came with the lines is no duplicate of other lines."""

    facts: int
    log: int

    @staticmethod
    def of(db: sqlite3.Connection) -> "Before":
        asked = "SELECT (SELECT ifnull(max(n), 0) FROM memory), (SELECT ifnull(max(n), 0) FROM memory_log)"
        return Before(*db.execute(asked).fetchone())


class Reader:
    """Takes lines over inside one transaction."""

    def __init__(
        self, tx: Transaction, principal: str, limits: Limits, before: Before, *, trust_most: str, new_id: Callable[[str], str],
        room: Callable[[Item], None], screened: Callable[[Item], Item],
    ) -> None:  # fmt: skip
        self._tx = tx
        self._principal = principal
        self._limits = limits
        self._before = before
        self._trust_most = trust_of(trust_most)
        self._new_id = new_id
        self._room = room
        """Refuses an item that does not fit any more."""
        self._screened = screened

    def take(self, line: Mapping[str, Any]) -> bool:
        """Whether it was new; KernelError when it cannot be taken."""
        match line.get("type"):
            case "fact":
                return self._fact(line)
            case "held":
                return self._held(line)
            case "note":
                return self._note(line)
            case "log":
                return self._log(line)
        raise ArgumentError(
            "argument.invalid", f"type is {str(line.get('type'))[:40]!r}; it is fact, held, note or log."
        )

    # --- facts

    def _fact(self, line: Mapping[str, Any]) -> bool:
        _known(line, {*FACT, "time"} - {"dated", "valid_from"})
        item = self._screened(self._item(line))
        author = self._author(line, "recorded_at")
        ends = self._ends(line, author.now if item.time is None else item.time)
        fact_id, confirmed = _id(line, "id"), _count(line, "confirmed")
        taken = self._tx.execute("SELECT principal FROM memory WHERE id=?", (fact_id,)).fetchone()
        if taken == (self._principal,):
            self._end(fact_id, (item.text, line["text"]), ends)
            return False
        if taken is not None:
            fact_id = self._new_id("mem")
        ended = any(ends[name] is not None for name in ("superseded_by", "retracted_at"))
        if not ended and self._equal(item, author.now):
            return False
        self._room(item)
        present = None if ended or item.key is None else self._in_slot(item.key)
        row = records.insert(self._tx, fact_id, item, author, records.digest_of(item))
        self._tx.execute("UPDATE memory SET confirmed=? WHERE n=?", (confirmed, row.n))
        if ended:
            self._set(row, ends)
        elif present is not None:
            older, newer = (present, row) if present.valid_from <= row.valid_from else (row, present)
            records.close(self._tx, author, older, valid_to=max(newer.valid_from, older.valid_from), by=newer.id)
        return True

    def _item(self, line: Mapping[str, Any]) -> Item:
        return item_of({name: line[name] for name in FIELDS if name in line}, 0, self._limits)

    def _equal(self, item: Item, then: float) -> bool:
        """An equal live text was here before, and had not ended when this one was recorded."""
        live, _ = recall.scopes_of(self._principal)
        found = records.equal_to(self._tx, live, records.digest_of(item), then)
        return found is not None and found[0] <= self._before.facts

    def _in_slot(self, key: str) -> Row | None:
        """The live value of the slot."""
        live, _ = recall.scopes_of(self._principal)
        rows = (Row(*row) for row in self._tx.execute(records.SLOT, (self._principal, key)))
        return next((row for row in rows if row.scope == live), None)

    def _ends(self, line: Mapping[str, Any], valid_from: float) -> dict[str, Any]:
        ends: dict[str, Any] = {name: _time(line, name) for name in ("valid_to", "closed_at", "retracted_at")}
        ends["superseded_by"] = None if line.get("superseded_by") is None else _id(line, "superseded_by")
        ends["reason"] = _label(line, "reason", 4 * self._limits.memory_label_chars_max)
        if ends["superseded_by"] is None:
            ends["valid_to"] = ends["closed_at"] = None
        elif ends["valid_to"] is None or ends["closed_at"] is None or ends["valid_to"] < valid_from:
            raise ArgumentError(
                "argument.invalid", "A fact that is superseded has valid_to after its time, and closed_at."
            )
        return ends

    def _end(self, fact_id: str, texts: tuple[str, str], ends: Mapping[str, Any]) -> None:
        """Of a fact that is known take over what ended it elsewhere."""
        row = records.row_of(self._tx, self._principal, fact_id)
        if row.text not in texts:  # as it is written, or with its secrets masked
            raise Conflict("memory.id_conflict", f"{fact_id} is another text here. The one that is here stays.")
        found = self._tx.execute(f"SELECT {', '.join(ENDS)} FROM memory WHERE n=?", (row.n,)).fetchone()  # noqa: S608
        have = dict(zip(ENDS, found, strict=True))
        superseded = have["superseded_by"] is None and ends["superseded_by"] is not None
        retracted = have["retracted_at"] is None and ends["retracted_at"] is not None
        if superseded or retracted:
            taken = (
                *(("valid_to", "closed_at", "superseded_by") if superseded else ()),
                *(("retracted_at", "reason") if retracted else ()),
            )
            self._set(row, {**have, **{name: ends[name] for name in taken}})

    def _set(self, row: Row, ends: Mapping[str, Any]) -> None:
        marks = ", ".join(f"{name}=?" for name in ENDS)
        self._tx.execute(f"UPDATE memory SET {marks} WHERE n=?", (*(ends[name] for name in ENDS), row.n))  # noqa: S608
        records.shelve(self._tx, row)

    # --- the rest

    def _held(self, line: Mapping[str, Any]) -> bool:
        _known(line, {"id", "trust", "client", "run_id", "step", "recorded_at", "item"})
        given = line.get("item")
        if not isinstance(given, Mapping):
            raise ArgumentError("argument.invalid", "item must be an object.")
        item = self._screened(item_of(given, 0, self._limits))
        held_id, digest, author = _id(line, "id"), records.digest_of(item), self._author(line, "recorded_at")
        taken = self._tx.execute(
            "SELECT principal FROM memory WHERE id=?1 UNION SELECT principal FROM memory_held WHERE id=?1", (held_id,)
        )
        owners = {owner for (owner,) in taken}
        if self._principal in owners or quarantine.known(self._tx, self._principal, digest):
            return False
        held = Held(
            self._new_id("mem") if owners else held_id, author.trust, author.client, author.run_id, author.step, author.now, item
        )  # fmt: skip
        quarantine.hold(self._tx, self._principal, held, digest, self._limits)
        return True

    def _note(self, line: Mapping[str, Any]) -> bool:
        _known(line, {"label", "text", "version", "updated_at"})
        label, text = _label(line, "label", self._limits.memory_label_chars_max), line.get("text", "")
        version, at = _count(line, "version"), _time(line, "updated_at")
        if not label or not label.strip() or not version or at is None:
            raise ArgumentError("argument.invalid", "A note has a label, a version above 0 and updated_at.")
        sane(text, "text", self._limits.block_chars_max)
        text = self._screened(Item(text, None, "note", None, None, None, (), None, (), None)).text
        present = self._tx.execute(
            "SELECT text FROM block WHERE principal=? AND label=?", (self._principal, label)
        ).fetchone()
        if present == (text,):
            return False
        if present is not None:
            raise Conflict(
                "memory.note_conflict", f"The note {label!r} has another text here. The one that is here stays."
            )
        (count,) = self._tx.execute(
            "SELECT count(*) FROM block WHERE principal=? AND text<>''", (self._principal,)
        ).fetchone()
        if text and count >= self._limits.blocks_max:
            raise LimitExceeded(
                "memory.block_full", f"There are {count} notes, the most there may be. Empty one first."
            )
        self._tx.execute("INSERT INTO block VALUES(?,?,?,?,?)", (self._principal, label, text, version, at))
        return True

    def _log(self, line: Mapping[str, Any]) -> bool:
        _known(line, LOG)
        op, what = line.get("op"), _label(line, "id", self._limits.memory_label_chars_max)
        if not isinstance(op, str) or not re.fullmatch(r"[a-z]{1,32}", op) or what is None:
            raise ArgumentError("argument.invalid", "A line of the log has an op, which is a word, and an id.")
        author = self._author(line, "at")
        trust = None if line.get("trust") is None else author.trust
        entry = (self._principal, op, what, author.now, trust, author.client, author.run_id, author.step)
        known = self._tx.execute(
            "SELECT 1 FROM memory_log WHERE n<=? AND principal=? AND op=? AND id=? AND at=? AND trust IS ? AND client IS ?"
            " AND run_id IS ? AND step IS ?",
            (self._before.log, *entry),
        ).fetchone()
        if known is not None:
            return False
        self._tx.execute(
            "INSERT INTO memory_log(principal, op, id, at, trust, client, run_id, step) VALUES(?,?,?,?,?,?,?,?)", entry
        )
        return True

    def _author(self, line: Mapping[str, Any], when: str) -> Author:
        at = _time(line, when)
        if at is None:
            raise ArgumentError("argument.missing", f"{when} is missing.")
        step = line.get("step")
        if not (step is None or (type(step) is int and abs(step) < 1 << 63)):
            step = _label(line, "step", self._limits.memory_label_chars_max)
        chars = self._limits.memory_label_chars_max
        trust = self._trust_most if line.get("trust") is None else min(trust_of(str(line["trust"])), self._trust_most)
        return Author(self._principal, trust, _label(line, "client", chars), _label(line, "run_id", chars), step, at)


def _known(line: Mapping[str, Any], names: Any) -> None:
    for name in line:
        if name not in names and name != "type":
            raise ArgumentError("argument.unknown", f"A line of type {line['type']!r} has no field {str(name)[:80]!r}.")


def _id(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise ArgumentError(
            "argument.invalid", f"{name} is {str(value)[:40]!r}; it is mem_ and 12 characters of base32."
        )
    return value


def _count(line: Mapping[str, Any], name: str) -> int:
    value = line.get(name, 0)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ArgumentError("argument.invalid", f"{name} must be a number from 0.")
    return value


def _time(line: Mapping[str, Any], name: str) -> float | None:
    return None if line.get(name) is None else moment(line[name], name)


def _label(line: Mapping[str, Any], name: str, chars_max: int) -> str | None:
    value = line.get(name)
    if value is not None:
        sane(value, name, chars_max)
    return value
