"""Who trusts a skill, and why: from where it lies, by a person's approval of its bytes, or by a rule of the operator.

    user, trusted, bundled     the user's own folder, the operator's, ours
    community                  a folder that was shared
    agent                      written by an agent
    community, agent -> trusted     a person approved this very version, or a rule in config.toml names the uri

Guarantees
1. An approval is of a revision, which is the digest of every path and byte: another byte, another name of a file, one file more, and it does
   not hold. It holds again for the old bytes, until it is revoked.
2. What a skill says of itself decides nothing. No tool of a model approves: `agent-kernel skill approve` does, which is a person's.
3. Who approved, when, and until when stays in the table.

Functions take the open transaction or connection and commit nothing.
"""

import sqlite3
from collections.abc import Collection
from fnmatch import fnmatchcase

from .store import Transaction

__all__ = ["SCHEMA", "all_approved", "approve", "approved", "revoke", "trust"]

SCHEMA = """
    CREATE TABLE skill_approval(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, key TEXT NOT NULL, revision TEXT NOT NULL, granted_at REAL NOT NULL, note TEXT,
        revoked_at REAL) STRICT;
    CREATE UNIQUE INDEX skill_approval_holds ON skill_approval(principal, key, revision) WHERE revoked_at IS NULL;
"""

OPEN_TO_APPROVAL = ("community", "agent")


def trust(own: str, uri: str, rules: Collection[str], *, holds: bool) -> str:
    """What a skill is worth that lies where trust is `own`."""
    if own not in OPEN_TO_APPROVAL:
        return own
    return "trusted" if holds or any(fnmatchcase(uri, rule) for rule in rules) else own


def approve(tx: Transaction, principal: str, key: str, revision: str, *, note: str | None, now: float) -> bool:
    """False when it was approved already."""
    if revision in approved(tx, principal, key):
        return False
    tx.execute(
        "INSERT INTO skill_approval(principal, key, revision, granted_at, note) VALUES(?,?,?,?,?)",
        (principal, key, revision, now, note),
    )
    return True


def revoke(tx: Transaction, principal: str, key: str, now: float) -> int:
    """All approvals of the skill, whatever the version; how many there were."""
    asked = "UPDATE skill_approval SET revoked_at=? WHERE principal=? AND key=? AND revoked_at IS NULL"
    return tx.execute(asked, (now, principal, key)).rowcount


def approved(db: sqlite3.Connection, principal: str, key: str) -> set[str]:
    """The revisions that are approved."""
    asked = "SELECT revision FROM skill_approval WHERE principal=? AND key=? AND revoked_at IS NULL"
    return {row[0] for row in db.execute(asked, (principal, key))}


def all_approved(db: sqlite3.Connection, principal: str) -> dict[str, set[str]]:
    """Of every skill."""
    held: dict[str, set[str]] = {}
    for key, revision in db.execute(
        "SELECT key, revision FROM skill_approval WHERE principal=? AND revoked_at IS NULL", (principal,)
    ):
        held.setdefault(key, set()).add(revision)
    return held
