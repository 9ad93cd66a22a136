"""Versions of skills: the bytes of every one that was loaded, run, written or approved, under the digest of its tree.

    skill_version   (principal, key, revision) -> manifest: paths, sizes, digests; the bytes are blobs of the store

Guarantees
1. Content-addressed: a version is its manifest, and `revision` is the digest of that. Nothing here is changed or removed.
2. `materialised` hands out a folder with exactly the files of the version it is named by, read-only and compared byte by byte.
3. A version is asked for by at least 8 characters of its revision; what they do not tell apart is not guessed.

Functions take the open transaction or connection and commit nothing. If the process dies: a version is there with all its bytes or not at
all; a half-made copy has another name and is never handed out.
"""

import contextlib
import difflib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import NotFound
from .manifests import Contents, File, Manifest, revision_of
from .store import Transaction, put_blob

__all__ = ["SCHEMA", "Kept", "Tree", "changes", "keep", "keep_tree", "kept", "manifest_of", "materialised", "text_of", "tree_of"]  # fmt: skip

SCHEMA = """
    CREATE TABLE skill_version(
        principal TEXT NOT NULL, uri TEXT NOT NULL, revision TEXT NOT NULL, manifest TEXT NOT NULL, recorded_at REAL NOT NULL,
        PRIMARY KEY(principal, uri, revision)) STRICT, WITHOUT ROWID;
"""

REVISION_CHARS_MIN = 8
DIFF_LINES_MAX = 4000
DIFFED_LINES_MAX = 20_000
"""Of both files; the time of a diff may grow with the square."""


class Tree(NamedTuple):
    """A version with its bytes."""

    revision: str
    files: tuple[File, ...]
    data: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Kept:
    revision: str
    recorded_at: float
    files: int


def keep(tx: Transaction, principal: str, key: str, version: Contents | Tree, now: float) -> None:
    for file in version.files:
        put_blob(tx, principal, file.digest, version.data[file.path], None)
    keep_manifest(tx, principal, key, version.revision, version.files, now=now)


def keep_manifest(
    tx: Transaction, principal: str, key: str, revision: str, files: Iterable[File], *, now: float
) -> None:
    tx.execute(
        "INSERT INTO skill_version VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
        (principal, key, revision, json.dumps(list(files)), now),
    )


def keep_tree(tx: Transaction, principal: str, key: str, files: Iterable[File], now: float) -> Manifest:
    """A version whose bytes are in the store already."""
    ordered = tuple(sorted(files))
    revision = revision_of(ordered)
    keep_manifest(tx, principal, key, revision, ordered, now=now)
    return Manifest(revision, ordered, ())


def is_kept(db: sqlite3.Connection, principal: str, key: str, revision: str) -> bool:
    asked = "SELECT 1 FROM skill_version WHERE principal=? AND uri=? AND revision=?"
    return db.execute(asked, (principal, key, revision)).fetchone() is not None


def kept(db: sqlite3.Connection, principal: str, key: str, limit: int) -> list[Kept]:
    """The newest."""
    asked = "SELECT revision, recorded_at, manifest FROM skill_version WHERE principal=? AND uri=? ORDER BY recorded_at DESC LIMIT ?"
    return [Kept(row[0], row[1], len(json.loads(row[2]))) for row in db.execute(asked, (principal, key, limit))]


def manifest_of(db: sqlite3.Connection, principal: str, key: str, revision: str, name: str) -> Manifest:
    """By the beginning of its revision; NotFound that says how to find one."""
    asked = "SELECT revision, manifest FROM skill_version WHERE principal=? AND uri=? AND substr(revision, 1, ?)=?"
    rows = db.execute(asked, (principal, key, len(revision), revision)).fetchall()
    if len(rows) != 1 or len(revision) < REVISION_CHARS_MIN:
        raise NotFound(
            "skill.revision_unknown",
            f"{name} has no one version {revision[:64]!r} that was seen here. view='history' lists them.",
        )
    return Manifest(rows[0][0], tuple(File(*entry) for entry in json.loads(rows[0][1])), ())


def tree_of(db: sqlite3.Connection, principal: str, manifest: Manifest) -> Tree:
    return Tree(manifest.revision, manifest.files, {f.path: bytes_of(db, principal, f) for f in manifest.files})


def bytes_of(db: sqlite3.Connection, principal: str, file: File) -> bytes:
    asked = "SELECT data FROM blob WHERE principal=? AND digest=?"
    return bytes(db.execute(asked, (principal, file.digest)).fetchone()[0])


def text_of(data: bytes) -> str | None:
    """None of what is no text."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


# --- differences


def changes(before: Tree, after: Tree, path: str | None = None) -> str:
    """A unified diff of two versions, of one path or of all; of files that are no text only that they differ."""
    lines: list[str] = []
    for name in sorted({*before.data, *after.data} if path is None else {path}):
        old, new = before.data.get(name), after.data.get(name)
        if old != new:
            lines += _file_changes(name, old, new)
        if len(lines) > DIFF_LINES_MAX:
            lines[DIFF_LINES_MAX:] = [f"[... cut after {DIFF_LINES_MAX} lines: ask for one path]"]
            break
    return "\n".join(lines)


def _file_changes(name: str, old: bytes | None, new: bytes | None) -> list[str]:
    labels = ("/dev/null" if old is None else f"a/{name}", "/dev/null" if new is None else f"b/{name}")
    texts = [text_of(data or b"") for data in (old, new)]
    if texts[0] is None or texts[1] is None:
        return [f"--- {labels[0]}", f"+++ {labels[1]}", f"{len(old or b'')} bytes became {len(new or b'')}; no text"]
    before, after = ((text or "").split("\n") for text in texts)
    short = len(before) + len(after) < DIFFED_LINES_MAX
    found = list(difflib.unified_diff(before, after, *labels, lineterm="")) if short else []
    return found or [f"--- {labels[0]}", f"+++ {labels[1]}", f"{len(old or b'')} bytes became {len(new or b'')}"]


# --- copies


def materialised(cache: Path, tree: Tree) -> Path:
    """The folder with exactly this version's files. A copy that is not exactly that is thrown away and made again."""
    folder = cache / tree.revision
    if _holds(folder, tree):
        return folder
    cache.mkdir(mode=0o700, exist_ok=True)
    fresh = cache / f".{tree.revision}.new"
    for left in (fresh, folder):
        shutil.rmtree(left, ignore_errors=True)
    written(fresh, tree, mode=0o444)
    fresh.rename(folder)
    assert _holds(folder, tree)
    return folder


def written(folder: Path, tree: Tree, *, mode: int) -> None:
    """Its files in a folder that is not there yet."""
    folder.mkdir(mode=0o755, parents=True)
    for file in tree.files:
        path = folder / file.path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(fd, "wb") as out:  # noqa: PTH123
            out.write(tree.data[file.path])
        path.chmod(mode)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)  # whatever umask we were started with: guests have uids of their own


def _holds(folder: Path, tree: Tree) -> bool:
    with contextlib.suppress(OSError):
        there = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }
        return there.keys() == tree.data.keys() and all(
            not path.is_symlink() and path.read_bytes() == tree.data[name] for name, path in there.items()
        )
    return False
