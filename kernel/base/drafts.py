"""Skills that agents write: a draft is edited, tested, promoted; every version of it stays.

    save -> draft -> test (in the sandbox) -> promote -> current       rollback: an earlier version is current again
                  -> reject: the draft is closed                       delete: no version is current
    skill_made    (principal, name): which version is current, and which is the open draft
    skill_event   what was done, by whom, why, with which outcome; append-only

Guarantees
1. Nothing is overwritten: every save makes a version (versions.py), and reject and delete only stop pointing at one. Any of them comes
   back with rollback.
2. Only a version that has been current becomes current by rollback; one that never was becomes the open draft.
3. A promotion names the version that it was tested as: what was saved after the test is another one.
4. Of one save either all is there or nothing: file, version, draft and event are one transaction.

Not here: the test itself (mcp_server), trust (approvals.py), which skill a draft begins as (skills.py).
Functions take the open transaction and commit nothing.
"""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from . import invocations, skillmd, versions
from .errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .limits import Limits
from .manifests import File, Manifest
from .ports import rfc3339
from .store import Transaction, put_blob

__all__ = ["SCHEMA", "Author", "Event", "Made", "all_made", "begin_with", "check_promotable", "close", "edit", "events", "made", "promote", "record", "rollback"]  # fmt: skip

SCHEMA = """
    CREATE TABLE skill_made(
        principal TEXT NOT NULL, name TEXT NOT NULL, current TEXT, draft TEXT, written_bytes INTEGER NOT NULL,
        PRIMARY KEY(principal, name)) STRICT, WITHOUT ROWID;
    CREATE TABLE skill_event(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, action TEXT NOT NULL, revision TEXT,
        before TEXT, client TEXT, run_id TEXT, reason TEXT, outcome TEXT) STRICT;
    CREATE INDEX skill_event_of ON skill_event(principal, key, n);
"""

REASON_CHARS_MAX = 2000


class Author(NamedTuple):
    principal: str
    client: str | None = None
    run_id: str | None = None


class Made(NamedTuple):
    name: str
    current: str | None
    draft: str | None

    @property
    def key(self) -> str:
        return key_of(self.name)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a skill's history."""

    at: str
    action: str
    revision: str | None = None
    before: str | None = None
    client: str | None = None
    run_id: str | None = None
    reason: str | None = None
    outcome: str | None = None


def key_of(name: str) -> str:
    return f"skill://agent/{quote(name)}/SKILL.md"


def made(db: sqlite3.Connection, principal: str, name: str) -> Made | None:
    row = db.execute(
        "SELECT name, current, draft FROM skill_made WHERE principal=? AND name=?", (principal, name)
    ).fetchone()
    return None if row is None else Made(*row)


def all_made(db: sqlite3.Connection, principal: str) -> list[Made]:
    rows = db.execute("SELECT name, current, draft FROM skill_made WHERE principal=? ORDER BY name", (principal,))
    return [Made(*row) for row in rows]


def begin_with(db: sqlite3.Connection, principal: str, name: str, base: Manifest | None) -> dict[str, File]:
    """The files that an edit of `name` starts from: its open draft, its current version, `base`, or none."""
    known = made(db, principal, name)
    revision = (known.draft or known.current) if known else None
    if revision is None:
        return {file.path: file for file in base.files} if base is not None else {}
    return {file.path: file for file in versions.manifest_of(db, principal, key_of(name), revision, name).files}


def edit(
    tx: Transaction, author: Author, name: str, *, base: Manifest | None, put: Mapping[str, bytes], remove: Sequence[str] = (),
    reason: str | None, action: str = "save", now: float, limits: Limits,
) -> Manifest:  # fmt: skip
    """The draft with those files written and those removed: a new version, or the one there is when nothing differs."""
    files = begin_with(tx, author.principal, name, base)
    for path in remove:
        if files.pop(path, None) is None:
            raise NotFound("skill.file_unknown", f"The draft of {name} has no file {path!r}. Nothing was changed.")
    for path, data in put.items():
        digest = hashlib.sha256(data).hexdigest()
        put_blob(tx, author.principal, digest, data, None)
        files[path] = File(path, len(data), digest)
    _check_paths(name, files)
    size = sum(file.size_bytes for file in files.values())
    if len(files) > limits.skill_files_max or size > limits.skill_bytes_max:
        raise LimitExceeded(
            "skill.too_large",
            f"{name} would have {len(files)} files and {size} bytes; at most {limits.skill_files_max} and {limits.skill_bytes_max}.",
        )
    known = made(tx, author.principal, name) or Made(name, None, None)
    manifest = versions.keep_tree(tx, author.principal, key_of(name), files.values(), now)
    if manifest.revision == (known.draft or known.current):
        return manifest
    _point(tx, author.principal, known, draft=manifest.revision, current=known.current)
    _count_bytes(tx, author.principal, name, sum(map(len, put.values())), limits)
    before = known.draft or known.current
    record(tx, author, key_of(name), action, manifest.revision, before=before, reason=reason, now=now)
    return manifest


def storable(label: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ArgumentError("argument.invalid", f"{label} has a lone surrogate, which is no text. Remove it.") from None


def replaced(
    db: sqlite3.Connection, principal: str, name: str, base: Manifest | None, *, path: str, old: str, new: str
) -> bytes:
    """The file with `new` in the place of `old`, which must be there once."""
    file = begin_with(db, principal, name, base).get(path)
    if file is None:
        raise NotFound("skill.file_unknown", f"{name} has no file {path!r} yet. Leave out `old` to write it.")
    text = versions.text_of(versions.bytes_of(db, principal, file))
    if text is None or text.count(old) != 1 or not old:
        count = "is no text" if text is None else f"has `old` {text.count(old) if old else 0} times"
        raise Conflict(
            "skill.edit_conflict", f"{path} of {name} {count}; it must be there exactly once. Load the draft and look."
        )
    return storable("text", text.replace(old, new))


def _check_paths(name: str, files: Mapping[str, File]) -> None:
    """No path may be a folder of another: such a tree cannot lie in a folder."""
    for path in files:
        above = path
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in files:
                raise ArgumentError("path.outside", f"{name} has a file {above!r}; {path!r} cannot be beneath it.")


def _count_bytes(tx: Transaction, principal: str, name: str, size: int, limits: Limits) -> None:
    tx.execute(
        "UPDATE skill_made SET written_bytes=written_bytes+? WHERE principal=? AND name=?", (size, principal, name)
    )
    asked = "SELECT sum(written_bytes), count(*) FROM skill_made WHERE principal=?"
    total, count = tx.execute(asked, (principal,)).fetchone()
    if total > limits.skill_written_bytes_max or count > limits.skills_made_max:
        raise LimitExceeded(
            "skill.full",
            f"Agents have written {count} skills and {total} bytes of them, all kept; at most {limits.skills_made_max} and"
            f" {limits.skill_written_bytes_max}. The operator's lines are in [limits] of config.toml.",
        )


def check_promotable(tx: Transaction, principal: str, name: str, *, tested: bool = True) -> None:
    """The draft is valid by the standard, and its test, where there is one, has passed on this very version."""
    known = the_draft(tx, principal, name)
    assert known.draft is not None
    manifest = versions.manifest_of(tx, principal, known.key, known.draft, name)
    file = next((file for file in manifest.files if file.path == "SKILL.md"), None)
    text = None if file is None else versions.text_of(versions.bytes_of(tx, principal, file))
    errors = ["Missing required file: SKILL.md"] if text is None else skillmd.strict_errors(text, name)
    if errors:
        raise Conflict(
            "skill.invalid", f"The draft of {name} is not valid: {'; '.join(errors)}. Mend it with skill_save."
        )
    script = invocations.test_of(file.path for file in manifest.files)
    if tested and script is not None:
        outcome = last_test(tx, principal, known.key, known.draft)
        if outcome != "passed":
            what = "has not been run on this version" if outcome is None else "failed"
            raise Conflict(
                "skill.untested",
                f"{script} of the draft of {name} {what}. Call skill_manage(name={name!r}, action='test').",
            )


def promote(tx: Transaction, author: Author, name: str, reason: str | None, now: float) -> Made:
    known = the_draft(tx, author.principal, name)
    _point(tx, author.principal, known, current=known.draft, draft=None)
    record(tx, author, known.key, "promote", known.draft, before=known.current, reason=reason, now=now)
    return Made(name, known.draft, None)


def the_draft(db: sqlite3.Connection, principal: str, name: str) -> Made:
    known = made(db, principal, name)
    if known is None or known.draft is None:
        there = "is as it was promoted" if known is not None and known.current else "is not there"
        raise Conflict("skill.no_draft", f"{name} has no open draft: it {there}. skill_save opens one.")
    return known


def close(tx: Transaction, author: Author, name: str, action: str, *, reason: str | None, now: float) -> Made:
    """`reject`: the draft is no longer open. `delete`: nor is any version current."""
    known = made(tx, author.principal, name)
    if known is None or (known.draft is None and (action == "reject" or known.current is None)):
        what = "open draft" if action == "reject" else "version that is current or open"
        raise Conflict("skill.no_draft", f"{name} has no {what} among the skills that agents wrote.")
    current = known.current if action == "reject" else None
    left = known.draft if action == "reject" else known.current or known.draft
    _point(tx, author.principal, known, current=current, draft=None)
    record(tx, author, known.key, action, current, before=left, reason=reason, now=now)
    return Made(name, current, None)


def rollback(
    tx: Transaction, author: Author, name: str, revision: str | None, *, reason: str | None, now: float
) -> Made:
    known = made(tx, author.principal, name)
    if known is None:
        raise NotFound("skill.unknown", f"No agent wrote a skill {name!r}; only such a skill can be rolled back.")
    wanted = _before(tx, author.principal, known) if revision is None else versions.manifest_of(
        tx, author.principal, known.key, revision, name).revision  # fmt: skip
    asked = "SELECT 1 FROM skill_event WHERE principal=? AND key=? AND action='promote' AND revision=? LIMIT 1"
    was_current = tx.execute(asked, (author.principal, known.key, wanted)).fetchone() is not None
    current, draft = (wanted, known.draft) if was_current else (known.current, wanted)
    _point(tx, author.principal, known, current=current, draft=draft)
    before = known.current if was_current else known.draft
    record(tx, author, known.key, "rollback", wanted, before=before, reason=reason, now=now)
    return Made(name, current, draft)


def _before(tx: Transaction, principal: str, known: Made) -> str:
    """The version that was current before this one; of a deleted skill the one that was deleted."""
    action = "delete" if known.current is None else "promote"
    row = tx.execute(
        "SELECT before FROM skill_event WHERE principal=?1 AND key=?2 AND action=?3 AND revision IS ?4 ORDER BY n DESC LIMIT 1",
        (principal, known.key, action, known.current),
    ).fetchone()
    if row is None or row[0] is None:
        raise Conflict(
            "skill.no_earlier",
            f"{known.name} has no version that was current before. skill_load(view='history') lists all; name one by revision.",
        )
    return str(row[0])


def _point(tx: Transaction, principal: str, known: Made, *, current: str | None, draft: str | None) -> None:
    tx.execute(
        "INSERT INTO skill_made VALUES(?,?,?,?,0) ON CONFLICT DO UPDATE SET current=excluded.current, draft=excluded.draft",
        (principal, known.name, current, None if draft == current else draft),
    )


def record(
    tx: Transaction, author: Author, key: str, action: str, revision: str | None, *, before: str | None = None, reason: str | None = None,
    outcome: str | None = None, now: float,
) -> None:  # fmt: skip
    if reason is not None and len(reason) > REASON_CHARS_MAX:
        raise ArgumentError("argument.invalid", f"reason has {len(reason)} characters; at most {REASON_CHARS_MAX}.")
    tx.execute(
        "INSERT INTO skill_event(principal, key, at, action, revision, before, client, run_id, reason, outcome)"
        " VALUES(?,?,?,?,?,?,?,?,?,?)",
        (author.principal, key, now, action, revision, before, author.client, author.run_id, reason, outcome),
    )


def last_test(db: sqlite3.Connection, principal: str, key: str, revision: str) -> str | None:
    """How the last test of this very version ended: passed, failed, or None."""
    row = db.execute(
        "SELECT outcome FROM skill_event WHERE principal=? AND key=? AND action='test' AND revision=? ORDER BY n DESC LIMIT 1",
        (principal, key, revision),
    ).fetchone()
    return None if row is None else str(row[0])


def events(db: sqlite3.Connection, principal: str, key: str, limit: int) -> list[Event]:
    """The newest first."""
    rows = db.execute(
        "SELECT at, action, substr(revision, 1, 12), substr(before, 1, 12), client, run_id, reason, outcome FROM skill_event"
        " WHERE principal=? AND key=? ORDER BY n DESC LIMIT ?",
        (principal, key, limit),
    )
    return [Event(rfc3339(row[0]), *row[1:]) for row in rows]
