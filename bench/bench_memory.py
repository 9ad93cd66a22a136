"""Memory: how much of the evidence a search brings, and what adding and searching cost.

    quality            recall of the gold evidence, by measure and by category: ours beside full-text search and libraries
    memory.search_1k, _100k    one search beside a plain FTS5 query for the same words on the same tables
    memory.scoped      one principal's thousand among a hundred thousand of another, beside the plain query over all
    memory.add_1k, _100k       one fact, on disk, beside a plain row with an index entry and one commit
    memory.mcp_add, _mcp_search    with --peers: over MCP on stdio at 10,000 facts, beside the official server-memory
    lost writes        with --peers: two servers on one store, 50 acknowledged writes each

Quality is measured on what the user gives (--locomo, --longmemeval; retrieval.py says which forms), else on made-up talks, which show
that everything runs and no more. The plain query takes the question's words as they are, stop words too: what somebody writes who has
no more than FTS5. It has no scope to look at, no text to cut, no reply to bound.

Stores are filled in the warm-up turn, before the first clock; the large one takes some minutes.
"""

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.store import Store
from agent_kernel.memory import Memory
from mcp import Client, StdioServerParameters

from .controls import nothing
from .finders import LIBRARIES, LOT, Finder, finders, fts_query, opened
from .interleave import Absent, Case, Contender
from .peers import Pin, installed
from .retrieval import DOINGS, MEASURES, PEOPLE, PLACES, THINGS, Corpus, Score, means, score, synthetic
from .survey import Table

__all__ = ["PINS", "cases"]

SERVER_MEMORY = Pin("server-memory", "npm", "@modelcontextprotocol/server-memory", "2026.8.31")
PINS = (*LIBRARIES, SERVER_MEMORY)
SMALL, LARGE, OVER_MCP = 1_000, 100_000, 10_000
SMOKE = 20
"""Times fewer facts for a run that only shows that everything works."""
WRITES = 50


@asynccontextmanager
async def cases(
    folder: Path, *, peers: Path | None, given: Mapping[str, Sequence[Corpus] | None] | None = None, smoke: bool = False
) -> AsyncIterator[list[Case | Table]]:
    files = {name: corpora for name, corpora in (given or {}).items() if corpora}
    divisor = SMOKE if smoke else 1
    async with AsyncExitStack() as stack:
        made: list[Case | Table] = []
        for name, corpora in (files or {"made up": synthetic()}).items():
            made += await _quality(folder / "quality", name, corpora, finders(peers))
        shutil.rmtree(folder / "quality", ignore_errors=True)
        for name, size in (("1k", SMALL), ("100k", LARGE)):
            store = _Filled(folder / name, size // divisor, stack)
            made += [_search(store, name), _add(store, name)]
            if name == "100k":
                made.append(_scoped(store))
        made += await _over_mcp(folder, peers, OVER_MCP // divisor, stack)
        yield made


# --- quality


async def _quality(
    folder: Path, name: str, corpora: Sequence[Corpus], wanted: Sequence[Finder | Absent]
) -> list[Table]:
    present = [one for one in wanted if isinstance(one, Finder)]
    missing = "; ".join(f"not measured: {one.name}, {one.why}" for one in wanted if isinstance(one, Absent))
    scores = {one.name: await _scored(folder / name / one.name, one, corpora) for one in present}
    categories = sorted({one.category for one in scores[present[0].name]})
    asked = sum(len(corpus.questions) for corpus in corpora)
    said = f"{len(corpora)} conversations, {sum(len(corpus.items) for corpus in corpora)} items, {asked} questions with evidence"
    rows = {one: [f"{value:.3f}" for value in means(found)] for one, found in scores.items()}
    parts = {one: [f"{means(found, category)[1]:.3f}" for category in categories] for one, found in scores.items()}
    about = "; ".join(f"{one.name}: {one.about}" for one in present)
    return [
        Table(
            f"memory.quality {name}",
            f"Which share of the evidence is among what is found? {said}",
            ("", *MEASURES),
            [(one, *cells) for one, cells in rows.items()],
            f"{about}. {missing}".rstrip(". ") + ".",
        ),
        Table(
            f"memory.categories {name}",
            "recall@10 by category of question",
            ("", *categories),
            [(one, *cells) for one, cells in parts.items()],
            "Adversarial questions have no answer and are in no total." if "adversarial" in categories else "",
        ),
    ]


async def _scored(folder: Path, finder: Finder, corpora: Sequence[Corpus]) -> list[Score]:
    scores = []
    for corpus in corpora:
        async with finder.filled(folder / corpus.name, corpus) as find:
            scores += [score(corpus, question, await find(question.text)) for question in corpus.questions]
        shutil.rmtree(folder / corpus.name, ignore_errors=True)
    return scores


# --- latency


def _facts(seed: int) -> Iterator[dict[str, Any]]:
    """Short facts without end, no two alike; 20 to a conversation."""
    chance = random.Random(seed)  # noqa: S311  (data of a benchmark)
    for number in itertools.count():
        name, thing, place = chance.choice(PEOPLE), chance.choice(THINGS), chance.choice(PLACES)
        words = " ".join(
            f"{chance.choice('bdfgklmnprst')}{chance.choice('aeiou')}{chance.randrange(900):03d}" for _ in range(12)
        )
        text = f"{name} {chance.choice(DOINGS)} the {thing} in {place}, number {number}, with {words}."
        yield {"text": text, "speaker": name, "conversation": f"{seed}-{number // 20}"}


def _questions() -> Iterator[str]:
    chance = random.Random(0)  # noqa: S311
    while True:
        yield f"Where was it that {chance.choice(PEOPLE)} {chance.choice(DOINGS)} the {chance.choice(THINGS)}, in {chance.choice(PLACES)}?"


class _Filled:
    """A memory of `size` facts of one principal, and for the scoped case a thousandth part of another; filled when first asked for."""

    OTHER = "other"

    def __init__(self, folder: Path, size: int, stack: AsyncExitStack) -> None:
        self._folder, self._size, self._stack = folder, size, stack
        self._opened: tuple[Memory, Store] | None = None
        self._plain: sqlite3.Connection | None = None
        self.facts = _facts(1)

    @property
    def size(self) -> int:
        return self._size

    async def memory(self) -> tuple[Memory, Store]:
        if self._opened is None:
            memory, store = await self._stack.enter_async_context(opened(self._folder))
            for size, principal in ((self._size, "local"), (max(self._size // 100, 10), self.OTHER)):
                for start in range(0, size, LOT):
                    lot = list(itertools.islice(self.facts, min(LOT, size - start)))
                    await memory.add(lot, principal=principal)
            self._opened = memory, store
        return self._opened

    async def plain(self) -> sqlite3.Connection:
        """A table with a full-text index and as many rows, as safe on disk."""
        if self._plain is None:
            db = self._plain = sqlite3.connect(f"{self._folder}.plain.db", isolation_level=None)
            self._stack.callback(db.close)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE VIRTUAL TABLE f USING fts5(speaker, text, tokenize='porter unicode61')")
            with contextlib.closing(db.cursor()) as cursor:
                cursor.execute("BEGIN")
                rows = ((fact["speaker"], fact["text"]) for fact in itertools.islice(_facts(2), self._size))
                cursor.executemany("INSERT INTO f VALUES(?,?)", rows)
                cursor.execute("COMMIT")
        return self._plain


def _search(store: _Filled, name: str, principal: str = "local") -> Case:
    questions = _questions()

    async def ours(question: str) -> Any:
        memory, _ = await store.memory()
        return await memory.search(question, principal=principal)

    async def plain(question: str) -> Any:
        _, file = await store.memory()
        asked = "SELECT rowid FROM memory_fts WHERE memory_fts MATCH ? ORDER BY rank LIMIT 10"
        return await file.read(lambda db: db.execute(asked, (fts_query(question),)).fetchall())

    return Case(
        f"memory.search_{name}",
        f"Ten best of {store.size} facts for a question: time until they are in the caller's hands",
        [
            Contender("Memory.search", "subject", "hits with text and provenance, neighbourhood order", ours, _few, fresh=lambda: (next(questions),)),
            Contender("plain FTS5", "control", "ten row numbers for the same words, same file", plain, _few, fresh=lambda: (next(questions),)),
            nothing(),
        ],
        base="plain FTS5",
        passes=30,
    )  # fmt: skip


def _few(found: Any, *_: Any) -> str | None:
    count = len(getattr(found, "hits", found))
    return None if 1 <= count <= 10 else f"{count} hits"


def _scoped(store: _Filled) -> Case:
    case = _search(store, "scoped", _Filled.OTHER)
    return Case(
        "memory.scoped",
        f"Ten best of one principal's {max(store.size // 100, 10)} facts among {store.size} of another",
        case.contenders, case.base, case.passes, note="The plain query goes over all of them.",
    )  # fmt: skip


def _add(store: _Filled, name: str) -> Case:
    facts = _facts(3)

    async def ours(fact: Mapping[str, Any]) -> Any:
        memory, _ = await store.memory()
        return await memory.add([fact])

    async def plain(fact: Mapping[str, Any]) -> Any:
        db = await store.plain()
        return db.execute("INSERT INTO f VALUES(?,?)", (fact["speaker"], fact["text"])).rowcount

    def wrong(added: Any, *_: Any) -> str | None:
        right = added == 1 or (isinstance(added, list) and not added[0].duplicate)
        return None if right else f"{added}"

    return Case(
        f"memory.add_{name}",
        f"One fact more among {store.size}: time until it is on disk and can be found",
        [
            Contender("Memory.add", "subject", "looked for equals and look-alikes, stored, logged, indexed", ours, wrong, fresh=lambda: (next(facts),)),
            Contender("plain FTS5 row", "control", "one INSERT, one commit; WAL, synchronous=FULL", plain, wrong, fresh=lambda: (next(facts),)),
            nothing(),
        ],
        base="plain FTS5 row",
        passes=30,
    )  # fmt: skip


# --- over MCP, beside the official server-memory


async def _over_mcp(folder: Path, peers: Path | None, size: int, stack: AsyncExitStack) -> list[Case | Table]:
    get = f"agent-kernel bench memory --peers   (installs {SERVER_MEMORY.package} {SERVER_MEMORY.version} from npm; needs node)"
    absent = None
    if peers is None:
        return []
    if shutil.which("node") is None or installed(peers, SERVER_MEMORY) is None:
        absent = Absent(SERVER_MEMORY.peer, "node or the package is not installed", get)
    ours = _Ours(folder / "mcp", size, stack)
    theirs = None if absent else _Theirs(peers, folder / "server-memory.json", size, stack)
    both = [ours, *([theirs] if theirs else [])]
    facts, questions = _facts(4), _questions()

    def contender(server: "_Server", tool: str) -> Contender:
        if tool == "add":
            return Contender(server.name, server.role, server.adds, server.add, _refused, fresh=lambda: (next(facts),))
        return Contender(
            server.name, server.role, server.finds, server.search, _refused, fresh=lambda: (next(questions),)
        )

    made: list[Case | Table] = [
        Case(
            f"memory.mcp_{tool}",
            f"{question} {size} facts, over MCP on stdio: time until the reply is here",
            [contender(server, tool) for server in both],
            base=both[-1].name,
            passes=20,
            absent=[absent] if absent else [],
        )
        for tool, question in (("add", "One fact more among"), ("search", "A search among"))
    ]
    return [*made, await _lost(folder / "lost", both)]


def _refused(result: Any, *_: Any) -> str | None:
    return f"refused: {result.content}" if result.is_error else None


class _Server:
    """An MCP server on stdio over a store of `size` facts; started when first asked for."""

    name: str
    role: Any
    adds: str
    finds: str

    def __init__(self, at: Path, size: int, stack: AsyncExitStack) -> None:
        self._at, self._size, self._stack = at, size, stack
        self._client: Client | None = None

    async def add(self, fact: Mapping[str, Any]) -> Any:
        return await self.adding(await self._connected(), fact)

    async def search(self, question: str) -> Any:
        return await self.searching(await self._connected(), question)

    async def _connected(self) -> Client:
        if self._client is None:
            await self.fill()
            self._client = await self._stack.enter_async_context(Client(self.command(self._at), cache=None))
        return self._client

    async def fill(self) -> None:
        raise NotImplementedError

    def command(self, at: Path) -> StdioServerParameters:
        raise NotImplementedError

    async def adding(self, client: Client, fact: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def searching(self, client: Client, question: str) -> Any:
        raise NotImplementedError

    async def kept(self, at: Path) -> int:
        """How many facts a store holds, after its servers are gone."""
        raise NotImplementedError


class _Ours(_Server):
    name, role = "agent-kernel", "subject"
    adds = "memory_add of one item"
    finds = "memory_search: the ten best with their texts"

    async def fill(self) -> None:
        async with Kernel.open(self._at) as kernel:
            facts = _facts(1)
            for start in range(0, self._size, LOT):
                await kernel.memory.add(list(itertools.islice(facts, min(LOT, self._size - start))))

    def command(self, at: Path) -> StdioServerParameters:
        return StdioServerParameters(
            command=sys.executable, args=["-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", str(at)]
        )

    async def adding(self, client: Client, fact: Mapping[str, Any]) -> Any:
        return await client.call_tool("memory_add", {"items": [fact]})

    async def searching(self, client: Client, question: str) -> Any:
        return await client.call_tool("memory_search", {"query": question})

    async def kept(self, at: Path) -> int:
        with contextlib.closing(sqlite3.connect(at / "kernel.db")) as db:
            return int(db.execute("SELECT count(*) FROM memory").fetchone()[0])


class _Theirs(_Server):
    name, role = SERVER_MEMORY.peer, "peer"
    adds = f"{SERVER_MEMORY.package} {SERVER_MEMORY.version}, create_entities of one entity with one observation"
    finds = f"{SERVER_MEMORY.package} {SERVER_MEMORY.version}, search_nodes of one word: more words are one substring to it, and find nothing"

    def __init__(self, peers: Path, at: Path, size: int, stack: AsyncExitStack) -> None:
        super().__init__(at, size, stack)
        self._script = peers / "node" / "node_modules" / SERVER_MEMORY.package / "dist" / "index.js"

    async def fill(self) -> None:
        lines = (json.dumps({"type": "entity", **_entity(fact)}) for fact in itertools.islice(_facts(1), self._size))
        self._at.write_text("\n".join(lines), encoding="utf8")

    def command(self, at: Path) -> StdioServerParameters:
        return StdioServerParameters(command="node", args=[str(self._script)], env={"MEMORY_FILE_PATH": str(at)})

    async def adding(self, client: Client, fact: Mapping[str, Any]) -> Any:
        return await client.call_tool("create_entities", {"entities": [_entity(fact)]})

    async def searching(self, client: Client, question: str) -> Any:
        return await client.call_tool("search_nodes", {"query": question.partition(",")[0].rpartition(" ")[2]})

    async def kept(self, at: Path) -> int:
        with contextlib.suppress(FileNotFoundError):
            return sum('"entity"' in line for line in at.read_text(encoding="utf8").splitlines())  # noqa: ASYNC240  after the clocks
        return 0


def _entity(fact: Mapping[str, Any]) -> dict[str, Any]:
    name = " ".join(fact["text"].split()[:9])
    return {"name": name, "entityType": "fact", "observations": [fact["text"]]}


async def _lost(folder: Path, servers: Sequence[_Server]) -> Table:
    folder.mkdir()  # noqa: ASYNC240
    rows = []
    for server in servers:
        at = folder / server.name
        facts = _facts(5)
        told = await asyncio.gather(
            *(_writer(server, at, list(itertools.islice(facts, WRITES))) for _ in range(2)), return_exceptions=True
        )
        acknowledged = sum(one for one in told if isinstance(one, int))
        turned_away = sum(isinstance(one, BaseException) for one in told)
        kept = await server.kept(at)
        rows.append((server.name, f"{2 - turned_away} of 2", str(acknowledged), str(kept), str(acknowledged - kept)))
    return Table(
        "memory.lost",
        f"Two servers on one store, {WRITES} writes each at the same time: what became of those that were acknowledged?",
        ("", "servers that ran", "acknowledged", "kept", "lost"),
        rows,
        "agent-kernel lets one process own a folder; the second is turned away by name before it takes a write.",
    )


async def _writer(server: _Server, at: Path, facts: Sequence[Mapping[str, Any]]) -> int:
    """How many of them were acknowledged."""
    async with Client(server.command(at), cache=None) as client:
        return sum([_refused(await server.adding(client, fact)) is None for fact in facts])
