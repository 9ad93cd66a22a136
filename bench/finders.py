"""Ways to find what was said: ours, plain full-text search, and the libraries that people take for it. Each is filled with one corpus.

    Memory.search        the product's own path: Memory.add of every item with its session as conversation, then Memory.search
    FTS5                 SQLite's, any word of the question, `unicode61`
    FTS5 porter          the same with stemming
    rank_bm25, bm25s, tantivy      with --peers, as their documents show; bm25s with stemmer and stop words, tantivy with `en_stem`

Every one but ours is given "speaker: text", which is what we index, so that names count for all.
"""

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import MemoryRules
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.memory import MIGRATIONS, Memory
from agent_kernel.scheduler import Scheduler

from .interleave import Absent
from .peers import Pin, imported, installed
from .retrieval import DEPTH, Corpus

__all__ = ["LIBRARIES", "Find", "Finder", "finders", "fts_query", "opened"]

Find: TypeAlias = Callable[[str], Awaitable[Sequence[int]]]
"""A question -> places of items in the corpus, best first."""

LIBRARIES = (
    Pin("rank_bm25", "PyPI", "rank-bm25", "0.2.2"),
    Pin("bm25s", "PyPI", "bm25s", "0.3.16"),
    Pin("PyStemmer", "PyPI", "PyStemmer", "3.1.0"),
    Pin("tantivy", "PyPI", "tantivy", "0.27.0"),
)
WORD = re.compile(r"[^\W_]+")
REPLY_BYTES = 1 << 24
LOT = 100


@dataclass(frozen=True, slots=True)
class Finder:
    name: str
    about: str
    filled: Callable[[Path, Corpus], AbstractAsyncContextManager[Find]]


def finders(peers: Path | None) -> list[Finder | Absent]:
    found: list[Finder | Absent] = [
        Finder("Memory.search", "the kernel's memory, no model", _ours),
        Finder("FTS5", f"SQLite {sqlite3.sqlite_version}: unicode61, any word, bm25", _fts5("unicode61")),
        Finder("FTS5 porter", "the same, porter unicode61", _fts5("porter unicode61")),
    ]
    for pin, needs, made in (
        (LIBRARIES[0], (), _rank_bm25),
        (LIBRARIES[1], (LIBRARIES[2],), _bm25s),
        (LIBRARIES[3], (), _tantivy),
    ):
        get = f"agent-kernel bench memory --peers   (installs {pin.package} {pin.version} from {pin.registry})"
        if peers is None or any(installed(peers, one) is None for one in (pin, *needs)):
            found.append(Absent(pin.peer, "it is not installed" if peers else "peers were not asked for", get))
        else:
            found.append(Finder(pin.peer, f"{pin.package} {pin.version}", made(peers)))
    return found


def fts_query(question: str) -> str:
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(WORD.findall(question.lower())))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Memory, Store]]:
    """A memory on a file of its own. What it is given is the user's own data, so nothing in it is taken for a secret."""
    limits, ports = Limits(), Ports.real()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(folder, ports=ports, limits=limits, migrations=[MIGRATIONS], spawn=scheduler.spawn)
    try:
        yield Memory(store=store, ports=ports, limits=limits, rules=MemoryRules(secrets="allow")), store
    finally:
        await store.close()
        await scheduler.close()


@asynccontextmanager
async def _ours(folder: Path, corpus: Corpus) -> AsyncIterator[Find]:
    async with opened(folder) as (memory, _):
        places: dict[str, int] = {}
        for start in range(0, len(corpus.items), LOT):
            lot = corpus.items[start : start + LOT]
            given = [{"text": i.text, "speaker": i.speaker, "conversation": i.session, "time": i.time} for i in lot]
            for place, added in enumerate(await memory.add(given), start):
                places.setdefault(added.id, place)

        async def find(question: str) -> list[int]:
            hits = await memory.search(question, limit=DEPTH, reply_bytes=REPLY_BYTES)
            return [places[hit.id] for hit in hits.hits]

        yield find


def _fts5(tokenizer: str) -> Callable[[Path, Corpus], AbstractAsyncContextManager[Find]]:
    @asynccontextmanager
    async def filled(_: Path, corpus: Corpus) -> AsyncIterator[Find]:
        db = sqlite3.connect(":memory:")
        db.execute(f"CREATE VIRTUAL TABLE f USING fts5(text, tokenize='{tokenizer}')")
        db.executemany("INSERT INTO f(rowid, text) VALUES(?,?)", enumerate(_texts(corpus)))

        async def find(question: str) -> list[int]:
            asked = "SELECT rowid FROM f WHERE f MATCH ? ORDER BY rank LIMIT ?"
            return [row[0] for row in db.execute(asked, (fts_query(question), DEPTH))]

        yield find
        db.close()

    return filled


def _rank_bm25(peers: Path) -> Callable[[Path, Corpus], AbstractAsyncContextManager[Find]]:
    library = imported(peers, "rank_bm25")

    @asynccontextmanager
    async def filled(_: Path, corpus: Corpus) -> AsyncIterator[Find]:
        index = library.BM25Okapi([WORD.findall(text.lower()) for text in _texts(corpus)])

        async def find(question: str) -> list[int]:
            return _best(index.get_scores(WORD.findall(question.lower())))

        yield find

    return filled


def _bm25s(peers: Path) -> Callable[[Path, Corpus], AbstractAsyncContextManager[Find]]:
    library, stemmer = imported(peers, "bm25s"), imported(peers, "Stemmer").Stemmer("english")

    def cut(texts: Sequence[str]) -> Any:
        return library.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    @asynccontextmanager
    async def filled(_: Path, corpus: Corpus) -> AsyncIterator[Find]:
        index = library.BM25()
        index.index(cut(list(_texts(corpus))), show_progress=False)

        async def find(question: str) -> list[int]:
            places, scores = index.retrieve(cut([question]), k=min(DEPTH, len(corpus.items)), show_progress=False)
            return [int(place) for place, score in zip(places[0], scores[0], strict=True) if score > 0]

        yield find

    return filled


def _tantivy(peers: Path) -> Callable[[Path, Corpus], AbstractAsyncContextManager[Find]]:
    library = imported(peers, "tantivy")

    @asynccontextmanager
    async def filled(_: Path, corpus: Corpus) -> AsyncIterator[Find]:
        schema = library.SchemaBuilder()
        schema.add_integer_field("place", stored=True)
        schema.add_text_field("text", tokenizer_name="en_stem")
        index = library.Index(schema.build())
        writer = index.writer()
        for place, text in enumerate(_texts(corpus)):
            writer.add_document(library.Document(place=place, text=text))
        writer.commit()
        index.reload()
        searcher = index.searcher()

        async def find(question: str) -> list[int]:
            asked = index.parse_query(" ".join(WORD.findall(question.lower())), ["text"])
            return [searcher.doc(address)["place"][0] for _, address in searcher.search(asked, DEPTH).hits]

        yield find

    return filled


def _texts(corpus: Corpus) -> Iterator[str]:
    return (f"{item.speaker}: {item.text}" for item in corpus.items)


def _best(scores: Sequence[float]) -> list[int]:
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return [place for place in order[:DEPTH] if scores[place] > 0]
