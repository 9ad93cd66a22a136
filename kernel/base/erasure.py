"""The proof that an erased text is gone: the raw files are read, byte by byte, and every place that still holds it is named.

A deletion in SQL proves nothing about bytes: free pages, the index and the write-ahead log keep them. After the rows are deleted
(secure_delete overwrites them), the index is merged and the log is folded in, the files of the state folder are scanned for the text as
UTF-8 and as JSON writes it. What is found is looked for in the rows of all tables: other rows may hold the same words rightfully.

Guarantees
1. `found` counts what lies in the database's files outside every row. Zero means: no page, free or used, and no log frame holds it.
2. `elsewhere` names each table of this principal, each file beside the database and each run that the texts came from. Rows of other
   principals are neither named nor counted.

Limits, said in the proof: at most 64 texts are looked for, the longest first, and none of less than 4 bytes, which any file has by
chance; of a long text three pieces of 48 bytes, because a row that is longer than a page is not stored in one piece. Files beside the database are read up to 1 GiB in all.

Not here: the deletion itself (memory.py).
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .store import Store

__all__ = ["Elsewhere", "Erased", "Proof", "prove"]

TEXTS_MAX = 64
READ = "somebody reads the file, an export perhaps; the bytes go when this is erased again after that, or the kernel closes"
BYTES_LEAST = 4
PIECE = 48
CHUNK = 4 << 20
BESIDE_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Erased:
    id: str
    text: str
    run_id: str | None
    step: str | int | None


@dataclass(frozen=True, slots=True)
class Proof:
    clean: bool
    found: int
    texts: int
    """How many of the erased texts were looked for."""
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    place: str
    count: int | None
    note: str


async def prove(store: Store, principal: str, gone: Sequence[Erased]) -> tuple[Proof, tuple[Elsewhere, ...]]:
    sought = _sought(gone)
    pieces = _pieces(sought)
    proof, elsewhere = await _scan(store, principal, pieces, len(sought))
    if not proof.clean:  # a reader may have kept the log alive for a moment
        proof, elsewhere = await _scan(store, principal, pieces, len(sought))
    runs = sorted({row.run_id for row in gone if row.run_id is not None})
    elsewhere += [
        Elsewhere(f"run {run}", None, "its program, its input and what it made of the text may hold it")
        for run in runs[:20]
    ]
    elsewhere.append(Elsewhere("backups", None, "copies made before now, outside the state folder, still hold it"))
    return proof, tuple(elsewhere)


async def _scan(store: Store, principal: str, pieces: Sequence[bytes], texts: int) -> tuple[Proof, list[Elsewhere]]:
    scrubbed = await store.scrub()
    raw = await asyncio.to_thread(_read_files, store.folder, pieces)
    own = {name: counts for name, counts in raw.items() if name.startswith("kernel.db") and ".v" not in name}
    total = [sum(counts[i] for counts in own.values()) for i in range(len(pieces))]
    elsewhere: list[tuple[str, int, str | None]] = []
    held = [0] * len(pieces)
    hit = [i for i, count in enumerate(total) if count]
    if hit:
        rows, index, schema = await store.read(
            lambda db: (
                list(_rows_with(db, pieces, hit)),
                list(_index_with(db, pieces, hit)),
                list(_schema_with(db, pieces, hit)),
            )
        )
        for place, owner, run, i, count in rows:
            held[i] += count
            if owner == principal and count:
                elsewhere.append((f"table {place}", count, run))
        known = {i for *_, i, _ in rows}
        for i, count in index:
            held[i] += count if i in known else 0
        for i, count in schema:
            held[i] += count
    found = sum([max(0, total[i] - held[i]) for i in hit])
    elsewhere += [(name, sum(counts), None) for name, counts in raw.items() if name not in own and any(counts)]
    places = _places(elsewhere)
    if found and not scrubbed:
        places.append(Elsewhere("kernel.db-wal", found, READ))
    return Proof(found == 0, found, texts, tuple(sorted(own))), places


def _places(elsewhere: Sequence[tuple[str, int, str | None]]) -> list[Elsewhere]:
    counts: dict[str, int] = {}
    runs: dict[str, set[str]] = {}
    for place, count, run in elsewhere:
        counts[place] = counts.get(place, 0) + count
        if run is not None:
            runs.setdefault(place, set()).add(run)
    return [
        Elsewhere(place, count, f"holds the same words{_named(sorted(runs.get(place, ())))}")
        for place, count in sorted(counts.items())
    ]


def _named(runs: Sequence[str]) -> str:
    return f": {', '.join(runs[:10])}{f' and {len(runs) - 10} more' if len(runs) > 10 else ''}" if runs else ""


def _sought(gone: Sequence[Erased]) -> list[str]:
    long = {row.text for row in gone if row.text.strip() and len(row.text.encode()) >= BYTES_LEAST}
    return sorted(long, key=len, reverse=True)[:TEXTS_MAX]


def _pieces(texts: Sequence[str]) -> list[bytes]:
    forms = {
        form.encode()
        for text in texts
        for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    }
    pieces: dict[bytes, None] = {}
    for form in sorted(forms):
        if len(form) <= PIECE * 3:
            pieces[form] = None
        else:
            for start in (0, (len(form) - PIECE) // 2, len(form) - PIECE):
                pieces[form[start : start + PIECE]] = None
    return list(pieces)


def _read_files(folder: Path, pieces: Sequence[bytes]) -> dict[str, list[int]]:
    """For each file how often each piece occurs in it."""
    beside = 0
    counts: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(folder))
        if not name.startswith("kernel.db"):
            beside += path.stat().st_size
            if beside > BESIDE_BYTES_MAX:
                continue
        counts[name] = [0] * len(pieces)
        for chunk, fresh in _chunks(path, max(map(len, pieces), default=1) - 1):
            for i, piece in enumerate(pieces):
                counts[name][i] += _ends_after(chunk, piece, len(chunk) - fresh)
    return counts


def _chunks(path: Path, overlap: int) -> Iterator[tuple[bytes, int]]:
    """The file in pieces that begin with the end of the one before, so that nothing is missed at a seam; and how much is new."""
    kept = b""
    try:
        with path.open("rb") as file:
            while fresh := file.read(CHUNK):
                chunk = kept + fresh
                yield chunk, len(fresh)
                kept = chunk[-overlap:] if overlap else b""
    except FileNotFoundError:
        return  # a file of somebody's that went away; it holds nothing


def _ends_after(chunk: bytes, piece: bytes, seen: int) -> int:
    """Occurrences, overlapping ones too, that end in the new part; the others were counted with the chunk before."""
    count, at = 0, chunk.find(piece, max(0, seen - len(piece) + 1))
    while at >= 0:
        count, at = count + 1, chunk.find(piece, at + 1)
    return count


def _rows_with(
    db: sqlite3.Connection, pieces: Sequence[bytes], hit: Sequence[int]
) -> Iterator[tuple[str, str, str | None, int, int]]:
    """(table.column, principal, run, piece, occurrences) of every row that holds a piece in upper or lower case.

    What an index of the table holds of it once more is a row of nobody.
    """
    for table, columns in _tables(db).items():
        if "principal" not in columns:
            continue
        run = "run_id" if "run_id" in columns else "NULL"
        if "rid" in columns and table != "run":
            run = f'(SELECT r.run_id FROM run r WHERE r.rid="{table}".rid)'  # noqa: S608  (names from the schema)
        for column in columns:
            copies = [condition for indexed, condition in _indexes(db, table) if column in indexed]
            for i in hit:
                for copy in (None, *copies):
                    rows = db.execute(
                        f'SELECT {"NULL" if copy else "principal"}, {run}, CAST("{column}" AS BLOB) FROM "{table}"'  # noqa: S608
                        f" WHERE typeof(\"{column}\") IN ('text', 'blob') AND {copy or '1'}"
                        f' AND instr(CAST(lower(CAST("{column}" AS TEXT)) AS BLOB), ?)',
                        (pieces[i].lower(),),
                    )
                    for owner, run_id, value in rows:
                        yield f"{table}.{column}", owner, run_id, i, _ends_after(value, pieces[i], 0)


def _indexes(db: sqlite3.Connection, table: str) -> list[tuple[list[str], str]]:
    """Of each index that is a tree of its own: its columns, and which rows are in it."""
    made = "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name=?"
    found = []
    for name, sql in db.execute(made, (table,)).fetchall():
        columns = [row[2] for row in db.execute("SELECT * FROM pragma_index_xinfo(?)", (name,)) if row[2] is not None]
        found.append((columns, (sql or "").partition(" WHERE ")[2] or "1"))
    return found


def _index_with(db: sqlite3.Connection, pieces: Sequence[bytes], hit: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(piece, occurrences) in the words of the full-text indexes, which belong to nobody: a text of one word may be one of them."""
    for table, columns in _tables(db).items():
        if table.endswith("_data") and columns == ["id", "block"]:
            for i in hit:
                for (block,) in db.execute(f'SELECT block FROM "{table}" WHERE instr(block, ?)', (pieces[i],)):  # noqa: S608
                    yield i, _ends_after(block, pieces[i], 0)


def _schema_with(db: sqlite3.Connection, pieces: Sequence[bytes], hit: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(piece, occurrences) in our own SQL, which every file begins with."""
    for row in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        for part in row:
            for i in hit:
                yield i, _ends_after((part or "").encode(), pieces[i], 0)


def _tables(db: sqlite3.Connection) -> dict[str, list[str]]:
    names = (
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND rootpage > 0"
    )
    return {
        table: [row[1] for row in db.execute("SELECT * FROM pragma_table_info(?)", (table,))]
        for (table,) in db.execute(names).fetchall()
    }
