"""What readers.py finds becomes memory, batch by batch: for `agent-kernel memory import`, in the kernel that holds the state folder.

    {kind: "item" | "entity" | "relation" | "record", batch: [{...}], source?, trust, dry_run, before?}
    -> {added, known, refused: [[position, why], ...], before}

Guarantees
1. A batch is one transaction. When something in it is refused it is done again one by one: what can be stored is, the rest is named.
2. What is there already is `known` and changes nothing but its confirmation: importing a file twice adds nothing.
3. `trust` says how far the file is trusted, at most; it comes from the person at the terminal, who is trusted most.
4. Lines of an export come in one after the other; `before`, given back by the first batch and named by the others, tells what was here
   already from what came with them.
5. A dry run does all of it and takes it back.

Not here: the files (readers.py), the door (control.py). If the process dies, whole batches are there; importing again adds the others.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_kernel.base.errors import ArgumentError, KernelError
from agent_kernel.base.limits import Limits
from agent_kernel.base.store import Store
from agent_kernel.base.transfer import Before
from agent_kernel.memory import Memory

from .memory_graph import Writer

__all__ = ["BATCH_MAX", "take"]

BATCH_MAX = {"item": 50, "entity": 50, "relation": 50, "record": 1000}
"""By kind. Whoever else writes waits as long as one takes; a line of an export is searched for nothing."""


class _TakenBack(Exception):
    """Carries the outcome of a dry run out of the transaction that it ends."""

    def __init__(self, outcome: dict[str, Any]) -> None:
        super().__init__()
        self.outcome = outcome


async def take(store: Store, memory: Memory, limits: Limits, request: Mapping[str, Any]) -> dict[str, Any]:
    kind, batch, trust = str(request.get("kind")), request.get("batch"), str(request.get("trust"))
    if kind not in BATCH_MAX or not isinstance(batch, list) or not all(isinstance(value, dict) for value in batch):
        raise ArgumentError("control.protocol", "Not a batch to import. Use the agent-kernel of the same version.")
    before = request.get("before") or await store.read(Before.of)
    source = {"source": str(request["source"])} if request.get("source") else {}

    async def stored(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        def unit(tx: sqlite3.Connection) -> dict[str, Any]:
            if kind == "item":
                outcome = _items(tx, memory, values, trust)
            elif kind == "record":
                reader = memory.reader_in(tx, Before(*before), trust=trust)
                new = [reader.take(value) for value in values]
                outcome = {"added": new.count(True), "known": new.count(False), "refused": []}
            else:
                writer = Writer(memory, tx, {"trust": trust}, limits.memory_items_max, **source)
                outcome = _graph(writer, kind, values)
            if request.get("dry_run"):
                raise _TakenBack(outcome)
            return outcome

        try:
            return await store.write(unit)
        except _TakenBack as taken:
            return taken.outcome

    try:
        outcome = await stored(batch)
    except KernelError:
        outcome = await _one_by_one(stored, batch)
    return {**outcome, "before": before}


async def _one_by_one(
    stored: Callable[[Sequence[Mapping[str, Any]]], Awaitable[dict[str, Any]]], batch: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    total: dict[str, Any] = {"added": 0, "known": 0, "refused": []}
    for position, value in enumerate(batch):
        try:
            outcome = await stored([value])
        except KernelError as error:
            total["refused"].append([position, str(error)])
            continue
        total["added"] += outcome["added"]
        total["known"] += outcome["known"]
        total["refused"] += [[position, why] for _, why in outcome["refused"]]
    return total


def _items(tx: sqlite3.Connection, memory: Memory, values: Sequence[Mapping[str, Any]], trust: str) -> dict[str, Any]:
    known = [one.duplicate for one in memory.add_in(tx, values, trust=trust)]
    return {"added": known.count(False), "known": known.count(True), "refused": []}


def _graph(writer: Writer, kind: str, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    refused = []
    if kind == "entity":
        refused = [[position, why] for position, value in enumerate(values) if (why := writer.merge(value)) is not None]
    else:
        writer.known += len(values) - len(writer.create_relations(values))
    return {"added": writer.added, "known": writer.known, "refused": refused}
