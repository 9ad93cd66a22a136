"""Live facts read whole, by kind and slot: what is laid out as files or as a graph is put together from them.

    live(db, principal, now, kind, key=K)                 the fact of one slot, if there is one
    live(db, principal, now, kind, conversation=C)        those of one conversation
    live(db, principal, now, kind, keys=P)                those whose key begins with P
    live(db, principal, now, kind, conversations=P)       those whose conversation begins with P

Guarantees
1. Only live rows of the principal, and those whole: nothing is cut, so a caller bounds what he shows.
2. Order is the order in which they were stored.

Not here: search and replies (recall.py), what the kinds mean (mcp_server/memory_files.py, memory_graph.py). Nothing is written.
"""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple, TypedDict, Unpack

from .recall import scopes_of

__all__ = ["Live", "Place", "live"]


class Live(NamedTuple):
    id: str
    key: str | None
    conversation: str | None
    speaker: str
    tags: tuple[str, ...]
    text: str
    valid_from: float

    def tag(self, name: str) -> str | None:
        """What follows `name=` in the first tag that begins so."""
        return next((tag[len(name) + 1 :] for tag in self.tags if tag.startswith(f"{name}=")), None)


class Place(TypedDict, total=False):
    """Which of them; all that is said holds together."""

    key: str
    conversation: str
    keys: str
    """How they begin."""
    conversations: str


def live(db: sqlite3.Connection, principal: str, now: float, kind: str, **place: Unpack[Place]) -> Iterator[Live]:
    where = ["principal=?", "scope=?", "kind=?", "(expires_at IS NULL OR expires_at>?)"]
    args: list[Any] = [principal, scopes_of(principal)[0], kind, now]
    for column in ("key", "conversation"):
        if column in place:
            where.append(f"{column}=?")
            args.append(place[column])
        if f"{column}s" in place:  # a range: LIKE would read wildcards in it, and not use the index
            begin: str = place[f"{column}s"]  # type: ignore[literal-required]
            where.append(f"{column}>=? AND {column}<?")
            args += [begin, begin[:-1] + chr(ord(begin[-1]) + 1)]
    asked = f"SELECT {', '.join(Live._fields)} FROM memory WHERE {' AND '.join(where)} ORDER BY n"  # noqa: S608
    for row in db.execute(asked, args):
        yield Live(*row)._replace(tags=tuple(json.loads(row[4])))
