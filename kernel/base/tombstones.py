"""What runs have recorded of facts that are erased: the words go, the shape stays, so that a program that is run again meets no difference.

    kernel.memory.add      arguments: the item becomes {"text": "[erased]"}; answer: the texts of look-alikes
    kernel.memory.search   answer: text and labels of the hit; arguments: a query that quotes the text
    output of an ended run the same, wherever an object has the id of the fact

Guarantees
1. No object that carries the id of an erased fact keeps its text or a label of it in these places. Nothing else is changed.
2. A replay compares the digest of a call's arguments, which stays, and is given answers as they are recorded: a program that is run
   again makes the same calls, as long as it does not decide by the words that are gone. One that does parks as diverged.
3. Functions here take the open transaction: the memory and its copies in steps are gone together.

Limits: a text without its id, as a program may have cut it out, passed it to a step or put it into its output, is not known to be a
copy; the proof (base/erasure.py) finds its bytes and names the table and the runs. The digest of a call's arguments is kept: who can
guess the text can confirm it.

Not here: what is erased and why (memory.py), the rest of the journal's tables (journal.py).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from .shown import dumps, loads
from .store import Transaction, put_blob

__all__ = ["ERASED", "SCHEMA", "Scrubbed", "erase"]

ERASED = "[erased]"
LABELS = ("speaker", "key", "conversation", "source", "client", "retired")

SCHEMA = """
    CREATE INDEX delivery_memory ON delivery(principal, method) WHERE method IN ('memory.add', 'memory.search');
    CREATE INDEX delivery_blob ON delivery(principal, blob) WHERE blob IS NOT NULL;
"""
_RECORDED = (
    "SELECT d.rid, d.dseq, d.method, d.args, coalesce(d.value, b.data), d.blob FROM delivery d"
    " LEFT JOIN blob b ON b.principal=d.principal AND b.digest=d.blob"
    " WHERE d.principal=? AND d.kind='ok' AND d.method IN ('memory.add', 'memory.search')"
)
_ID = re.compile(rb'"id"\s*:\s*"([^"\\]{1,64})"')


class Scrubbed(NamedTuple):
    """Recorded calls that lost a text, and the runs among them that have not ended."""

    steps: int
    under_way: tuple[str, ...]


def erase(tx: Transaction, principal: str, gone: Mapping[str, str], inline_bytes_max: int) -> Scrubbed:
    """`gone`: id and text of each erased fact."""
    changed = list(_changed(tx, principal, gone))
    for rid, dseq, arguments, value, blob in changed:
        digest = None
        if len(value) > inline_bytes_max:
            digest = hashlib.sha256(value).hexdigest()
            put_blob(tx, principal, digest, value, None)
        tx.execute(
            "UPDATE delivery SET args=?, value=?, blob=? WHERE rid=? AND dseq=?",
            (arguments, None if digest else value, digest, rid, dseq),
        )
        if blob is not None and blob != digest:
            _let_go(tx, principal, blob)
    _erase_outputs(tx, principal, gone.keys())
    asked = "SELECT run_id FROM run WHERE ended_at IS NULL AND rid IN (SELECT value FROM json_each(?)) ORDER BY rid"
    touched = sorted({rid for rid, *_ in changed})
    under_way = tuple(run_id for (run_id,) in tx.execute(asked, (json.dumps(touched),)))
    return Scrubbed(len(changed), under_way)


def _changed(
    tx: Transaction, principal: str, gone: Mapping[str, str]
) -> Iterator[tuple[int, int, bytes | None, bytes, str | None]]:
    for rid, dseq, method, arguments, value, blob in tx.execute(_RECORDED, (principal,)).fetchall():
        named = _named(value) & gone.keys()
        if not named:
            continue
        answer = loads(value)
        given = arguments
        if arguments is not None:
            texts = [gone[name].lower() for name in named]
            given = (
                _without_items(arguments, answer, named) if method == "memory.add" else _without_query(arguments, texts)
            )
        without(answer, named)
        new = dumps(answer)
        if new != value or given != arguments:
            yield rid, dseq, given, new, blob


def _named(data: bytes) -> set[str]:
    """What stands as an id in this JSON."""
    return {found.decode("utf8", "replace") for found in _ID.findall(data)}


def _without_items(arguments: bytes, answer: Any, ids: AbstractSet[str]) -> bytes:
    """The answer names the facts in the order of the items that made them."""
    given = loads(arguments)
    given["items"] = [
        {"text": ERASED} if added["id"] in ids else item for item, added in zip(given["items"], answer, strict=True)
    ]
    return dumps(given)


def _without_query(arguments: bytes, texts: Sequence[str]) -> bytes:
    given = loads(arguments)
    query = (given.get("query") or "").lower()
    if not any(query and (query in text or text in query) for text in texts):
        return arguments
    return dumps({**given, "query": ERASED})


def without(value: Any, ids: AbstractSet[str]) -> None:
    """Blank the words of every object in `value` that has one of these ids and a text."""
    level = [value]
    while level:
        inner = level.pop()
        if isinstance(inner, list):
            level += inner
        elif isinstance(inner, dict):
            level += inner.values()
            name = inner.get("id")
            if isinstance(name, str) and name in ids and isinstance(inner.get("text"), str):
                inner["text"] = ERASED
                inner.update({label: ERASED for label in LABELS if isinstance(inner.get(label), str)})
                if isinstance(inner.get("tags"), list):
                    inner["tags"] = [ERASED for _ in inner["tags"]]


def _erase_outputs(tx: Transaction, principal: str, ids: AbstractSet[str]) -> None:
    asked = "SELECT rid, output FROM run WHERE principal=? AND ended_at IS NOT NULL AND instr(output, '\"id\"')"
    for rid, output in tx.execute(asked, (principal,)).fetchall():
        if _named(output) & ids:
            shown = loads(output)
            without(shown, ids)
            tx.execute("UPDATE run SET output=? WHERE rid=?", (dumps(shown), rid))


def _let_go(tx: Transaction, principal: str, digest: str) -> None:
    """Remove the bytes that no delivery and no kept reply names any more."""
    tx.execute(
        "DELETE FROM blob WHERE principal=?1 AND digest=?2 AND NOT EXISTS (SELECT 1 FROM delivery WHERE principal=?1 AND blob=?2)"
        " AND NOT EXISTS (SELECT 1 FROM artifact WHERE principal=?1 AND digest=?2)",
        (principal, digest),
    )
