"""The nine tools of the official server-memory over the kernel's memory: a graph of entities, observations and relations.

    entity        kind `entity`, key `entity/NAME`, tag `type=TYPE`, text `NAME (TYPE)`
    observation   kind `observation`, text as given, in the conversation `entity/NAME`, said by NAME
    relation      kind `relation`, key `relation/` + digest, tags `from= type= to=`, text `FROM TYPE TO`

Each is a fact, so memory_search finds it by its words and by the entity's name; deleting retracts, and history stays.

Guarantees
1. The same calls give the same answers as server-memory 2026.8.31, texts and structures alike, but for what is said below.
2. A call happens as a whole in one transaction, on the graph as it is then: writers at the same time lose nothing.
3. Replies are bounded: what does not fit is left out at the end, and a second text block says how much and where it is.

Better on purpose: what is named twice in one call is stored once; a query that is nowhere as a whole is searched for word by word.
Names and types have at most `NAME_CHARS_MAX` characters.

Not here: schemas (profiles.py), the file that server-memory keeps (readers.py).
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent_kernel import Kernel
from agent_kernel.base.errors import LimitExceeded
from agent_kernel.base.live import Live
from agent_kernel.memory import Added, Memory

from .foreign import Said, Worded, believed, left_out

__all__ = ["NAME_CHARS_MAX", "Graph", "Relation", "Writer", "graph_of", "perform", "pretty"]

NAME_CHARS_MAX = 240
FOUND_MAX = 50
"""Facts looked at for a query that is searched for word by word."""
NODE, EDGE = "entity/", "relation/"
WHOLE = "memory://knowledge-graph"


class Relation(NamedTuple):
    source: str
    target: str
    kind: str

    def wire(self) -> dict[str, str]:
        return {"from": self.source, "to": self.target, "relationType": self.kind}

    @property
    def key(self) -> str:
        return EDGE + hashlib.sha256(json.dumps(self).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Entity:
    name: str
    kind: str
    observations: list[str] = field(default_factory=list)

    def wire(self) -> dict[str, Any]:
        return {"name": self.name, "entityType": self.kind, "observations": self.observations}


@dataclass(frozen=True, slots=True)
class Graph:
    entities: Sequence[Entity]
    relations: Sequence[Relation]

    def around(self, entities: Sequence[Entity]) -> "Graph":
        """These entities, and the relations that begin or end at one of them."""
        names = {entity.name for entity in entities}
        return Graph(entities, [edge for edge in self.relations if edge.source in names or edge.target in names])

    def wire(self) -> dict[str, Any]:
        return {
            "entities": [node.wire() for node in self.entities],
            "relations": [edge.wire() for edge in self.relations],
        }


def graph_of(memory: Memory, db: sqlite3.Connection) -> Graph:
    nodes = {
        fact.key[len(NODE) :]: Entity(fact.key[len(NODE) :], fact.tag("type") or "")
        for fact in memory.live_in(db, "entity", keys=NODE)
        if fact.key is not None
    }
    for fact in memory.live_in(db, "observation", conversations=NODE):
        if fact.conversation is not None and (node := nodes.get(fact.conversation[len(NODE) :])) is not None:
            node.observations.append(fact.text)
    return Graph(list(nodes.values()), [edge for edge, _ in _edges(memory, db)])


def _edges(memory: Memory, db: sqlite3.Connection) -> Iterable[tuple[Relation, Live]]:
    for fact in memory.live_in(db, "relation", keys=EDGE):
        yield Relation(fact.tag("from") or "", fact.tag("to") or "", fact.tag("type") or ""), fact


# --- writing


class Writer:
    """Changes of the graph inside one transaction."""

    def __init__(
        self, memory: Memory, tx: sqlite3.Connection, author: Mapping[str, Any], items_max: int, **more: Any
    ) -> None:
        self.memory = memory
        self.tx = tx
        self.author = author
        """Provenance, as memory takes it."""
        self.items_max = items_max
        """Of one `add_in`."""
        self.more = more
        """Fields for every fact that is stored: a source."""
        self.added = self.known = 0
        self.stored: list[Added] = []

    def create_entities(self, entities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Those that were not there."""
        made: dict[str, Entity] = {}
        items = []
        for given in entities:
            name, kind = _label(given["name"]), _label(given["entityType"])
            if name in made or self._node(name) is not None:
                continue
            made[name] = Entity(name, kind, list(dict.fromkeys(given["observations"])))
            items.append(
                {"text": f"{name} ({kind})", "key": NODE + name, "kind": "entity", "conversation": NODE + name,
                 "speaker": name, "tags": [f"type={kind}"]}
            )  # fmt: skip
            items += [_observation(name, text) for text in made[name].observations]
        self._add(items)
        return [entity.wire() for entity in made.values()]

    def add_observations(self, observations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        results = []
        for given in observations:
            name, contents = given["entityName"], list(dict.fromkeys(given["contents"]))
            if self._node(name) is None:
                raise Said(f"Entity with name {name} not found")
            new = self._add([_observation(name, text) for text in contents])
            added = [text for text, is_new in zip(contents, new, strict=True) if is_new]
            results.append({"entityName": name, "addedObservations": added})
        return results

    def merge(self, entity: Mapping[str, Any]) -> str | None:
        """An entity from elsewhere: what is here already stays, the rest is added. What could not be taken over, in words."""
        if self.create_entities([entity]):
            return None
        self.known += 1
        self.add_observations([{"entityName": entity["name"], "contents": entity["observations"]}])
        node = self._node(entity["name"])
        kind = (node.tag("type") or "") if node else ""
        return (
            None
            if kind == entity["entityType"]
            else f"the entity is here as {kind!r}; the type {entity['entityType']!r} is left"
        )

    def create_relations(self, relations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Those that were not there; their ends need not be."""
        edges = [Relation(_label(edge["from"]), _label(edge["to"]), _label(edge["relationType"])) for edge in relations]
        new = [edge for edge in dict.fromkeys(edges) if self._fact("relation", edge.key) is None]
        self._add(
            {"text": f"{edge.source} {edge.kind} {edge.target}", "key": edge.key, "kind": "relation",
             "conversation": NODE + edge.source, "tags": [f"from={edge.source}", f"type={edge.kind}", f"to={edge.target}"]}
            for edge in new
        )  # fmt: skip
        return [edge.wire() for edge in new]

    def delete_entities(self, names: Sequence[str]) -> None:
        """With their observations and every relation that begins or ends there."""
        gone = []
        for name in dict.fromkeys(names):
            node = self._node(name)
            if node is not None:
                gone += [node.id, *(fact.id for fact in self._observations(name))]
        ends = set(names)
        gone += [fact.id for edge, fact in _edges(self.memory, self.tx) if edge.source in ends or edge.target in ends]
        self._retract(gone)

    def delete_observations(self, deletions: Sequence[Mapping[str, Any]]) -> None:
        for given in deletions:
            texts = set(given["observations"])
            self._retract([fact.id for fact in self._observations(given["entityName"]) if fact.text in texts])

    def delete_relations(self, relations: Sequence[Mapping[str, Any]]) -> None:
        edges = dict.fromkeys(Relation(edge["from"], edge["to"], edge["relationType"]) for edge in relations)
        facts = [self._fact("relation", edge.key) for edge in edges]
        self._retract([fact.id for fact in facts if fact is not None])

    def _fact(self, kind: str, key: str) -> Live | None:
        return next(self.memory.live_in(self.tx, kind, key=key), None)

    def _node(self, name: str) -> Live | None:
        return self._fact("entity", NODE + name)

    def _observations(self, name: str) -> Iterable[Live]:
        return self.memory.live_in(self.tx, "observation", conversation=NODE + name)

    def _add(self, items: Iterable[Mapping[str, Any]]) -> list[bool]:
        """For each whether it is new."""
        all_items = [{**item, **self.more} for item in items]
        added = []
        for start in range(0, len(all_items), self.items_max):
            added += self.memory.add_in(self.tx, all_items[start : start + self.items_max], **self.author)
        believed(added)
        self.stored += added
        new = [not one.duplicate for one in added]
        self.added += sum(new)
        self.known += len(new) - sum(new)
        return new

    def _retract(self, ids: Sequence[str]) -> None:
        if ids:
            self.memory.forget_in(self.tx, ids, reason="deleted from the graph", **self.author)


def _observation(name: str, text: str) -> dict[str, Any]:
    return {"text": text, "kind": "observation", "conversation": NODE + name, "speaker": name}


def _label(text: str) -> str:
    if len(text) > NAME_CHARS_MAX:
        raise LimitExceeded(
            "limit.exceeded",
            f"{text[:40]!r}... has {len(text)} characters; a name or type has at most {NAME_CHARS_MAX}. Nothing was stored.",
        )
    return text


# --- the nine tools


async def perform(kernel: Kernel, name: str, arguments: Mapping[str, Any], author: Mapping[str, Any]) -> Worded:
    limits = kernel.policy.limits
    room = limits.reply_bytes_max - 512
    if name in _READS:
        asked = _READS[name]
        return _graph_reply(await kernel.store.read(lambda db: asked(kernel.memory, db, arguments)), room)
    act, argument = _WRITES[name]

    def written(tx: sqlite3.Connection) -> tuple[Any, str | None]:
        writer = Writer(kernel.memory, tx, author, limits.memory_items_max)
        return act(writer, arguments[argument]), left_out(writer.stored)

    value, note = await kernel.store.write(written)
    if value is None:
        message = f"{_NOUNS[argument]} deleted successfully"
        return Worded(message, {"success": True, "message": message})
    return _list_reply("results" if name == "add_observations" else argument, value, room, note)


_WRITES: Mapping[str, tuple[Callable[[Writer, Any], Any], str]] = {
    "create_entities": (Writer.create_entities, "entities"),
    "create_relations": (Writer.create_relations, "relations"),
    "add_observations": (Writer.add_observations, "observations"),
    "delete_entities": (Writer.delete_entities, "entityNames"),
    "delete_observations": (Writer.delete_observations, "deletions"),
    "delete_relations": (Writer.delete_relations, "relations"),
}
_NOUNS = {"entityNames": "Entities", "deletions": "Observations", "relations": "Relations"}


def _all(memory: Memory, db: sqlite3.Connection, _: Mapping[str, Any]) -> Graph:
    return graph_of(memory, db)


def _opened(memory: Memory, db: sqlite3.Connection, arguments: Mapping[str, Any]) -> Graph:
    graph = graph_of(memory, db)
    names = set(arguments["names"])
    return graph.around([node for node in graph.entities if node.name in names])


def _searched(memory: Memory, db: sqlite3.Connection, arguments: Mapping[str, Any]) -> Graph:
    """What holds the query as a whole, in any case; where nothing does, what its words find, best first."""
    graph = graph_of(memory, db)
    wanted = arguments["query"].lower()
    found = [
        node for node in graph.entities
        if wanted in node.name.lower() or wanted in node.kind.lower() or any(wanted in text.lower() for text in node.observations)
    ]  # fmt: skip
    if not found and wanted.strip():
        by_name = {node.name: node for node in graph.entities}
        hits = memory.search_in(db, arguments["query"], limit=FOUND_MAX, reply_bytes=1 << 20).hits
        names = [
            hit.conversation[len(NODE) :] for hit in hits if hit.conversation and hit.conversation.startswith(NODE)
        ]
        found = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
    return graph.around(found)


_READS: Mapping[str, Callable[[Memory, sqlite3.Connection, Mapping[str, Any]], Graph]] = {
    "read_graph": _all, "open_nodes": _opened, "search_nodes": _searched,
}  # fmt: skip


# --- replies


def pretty(value: Any) -> str:
    """JSON as server-memory writes it into the text block."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _size(value: Any) -> int:
    """Bytes of one entry within a list of the pretty text."""
    text = pretty(value)
    return len(text.encode()) + 4 * (text.count("\n") + 1) + 2


def _graph_reply(graph: Graph, room: int) -> Worded:
    shown = graph.wire()
    if len(pretty(shown).encode()) <= room:
        return Worded(pretty(shown), shown)
    entities = _first(shown["entities"], room * 3 // 4)
    if not entities and shown["entities"]:
        entities = [_cut_entity(shown["entities"][0], room * 3 // 4)]
    relations = graph.around([Entity(entity["name"], "") for entity in entities]).relations
    edges = _first([edge.wire() for edge in relations], room - 64 - sum(map(_size, entities)))
    note = (
        f"Shown: {len(entities)} of {len(graph.entities)} entities, {len(edges)} of {len(graph.relations)} relations."
        f" A narrower search_nodes or open_nodes shows others; the whole is at {WHOLE}, which sandbox_read opens page by page."
    )
    part = {"entities": entities, "relations": edges}
    return Worded(pretty(part), part, note)


def _list_reply(name: str, value: list[Any], room: int, left_out: str | None) -> Worded:
    shown = _first(value, room)
    cut = None if len(shown) == len(value) else f"Done for all {len(value)}; the first {len(shown)} are shown."
    return Worded(pretty(shown), {name: shown}, " ".join(note for note in (cut, left_out) if note) or None)


def _first(values: Sequence[Any], room: int) -> list[Any]:
    """As many from the front as fit."""
    shown = []
    for value in values:
        room -= _size(value)
        if room < 0:
            break
        shown.append(value)
    return shown


def _cut_entity(entity: Mapping[str, Any], room: int) -> dict[str, Any]:
    """One entity that is too long by itself, with the first observations that fit."""
    left = room - _size({**entity, "observations": []})
    return {**entity, "observations": _first(entity["observations"], left)}
