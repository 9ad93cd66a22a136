"""Memories in the files of others, read one by one: server-memory's JSON Lines, Hermes' MEMORY.md and USER.md, folders of Markdown,
and JSON Lines.

    server-memory   a line {"type": "entity" | "relation", ...}                       -> `entity`, `relation`
    jsonl           lines of `agent-kernel memory export`                             -> `record`
                    or lines as memory_add takes them, {"text": ..., ...}             -> `item`
    hermes          entries between lines of a section sign                           -> `item`
    markdown        a file, or every *.md beneath a folder (markdown.py)              -> `item`

`auto` looks at the name and, of a file that is no Markdown, at the first line.

Guarantees
1. Only regular files are opened, and never through a link: those are named and left; `-` is stdin, whatever that is. A folder is walked by descriptor, `DEPTH_MAX`
   deep, `FILES_MAX` files, in the order of names; hidden entries and other kinds of files are counted.
2. What cannot be read is a Problem with its file and line, and the rest goes on: a line that is no JSON or too long, a file that is no
   UTF-8 or too large. Memory is bounded by one line, or one Markdown file.
3. What is found says where it stood, so that a later refusal can name the line.

Not here: storing it (importing.py). Nothing is written.
"""

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from agent_kernel.base import system
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.transfer import FORMAT

from .markdown import entries, has_entries, note_of

__all__ = ["FORMATS", "STDIN", "Found", "Problem", "Reading", "read"]

FORMATS = ("auto", "server-memory", "markdown", "hermes", "jsonl")
MARKDOWN = (".md", ".markdown")
STDIN = "-"
LINE_BYTES_MAX = 2 << 20
FILE_BYTES_MAX = 8 << 20
FILES_MAX = 100_000
DEPTH_MAX = 32
BROKEN_MAX = 100
"""Lines that are looked through for the first one that can be read."""
LABEL_CHARS = 256


class Found(NamedTuple):
    file: str
    line: int
    kind: str
    """`item`, `entity`, `relation` or `record`: who stores it."""
    value: dict[str, Any]


class Problem(NamedTuple):
    file: str
    line: int | None
    what: str


@dataclass(slots=True)
class Reading:
    """What was passed over without being wrong."""

    files: int = 0
    skipped: int = 0


class _Unreadable(Exception):
    """Why a file is left, in words."""


def read(path: Path, format: str, reading: Reading) -> Iterator[Found | Problem]:  # noqa: A002  (the option's name)
    """Everything in a file, or in the Markdown files beneath a folder."""
    if str(path) == STDIN:
        reading.files += 1
        try:
            yield from _file(sys.stdin.buffer, Path("stdin"), format)
        except _Unreadable as problem:
            yield Problem("stdin", None, str(problem))
        return
    path = path.absolute()
    if stat.S_ISDIR(os.lstat(path).st_mode):
        if format not in ("auto", "markdown", "hermes"):
            raise ArgumentError(
                "import.folder", f"{path} is a folder; of those Markdown is read. Name a file of format {format}."
            )
        yield from _folder(path, format, reading)
        return
    try:
        with _opened(path.name, path, None) as file:
            reading.files += 1
            yield from _file(file, path, format)
    except _Unreadable as problem:
        yield Problem(str(path), None, str(problem))


# --- files


@contextlib.contextmanager
def _opened(name: str, path: Path, folder: int | None) -> Iterator[IO[bytes]]:
    """A regular file below `folder`, or at `path`; a link is not followed and a FIFO not waited for."""
    flags = os.O_RDONLY | system.flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC") | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink():
            raise _Unreadable("is a link; links are not followed")
        fd = os.open(path if folder is None else name, flags, dir_fd=folder)
    except OSError as error:
        raise _Unreadable(f"cannot be opened: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _Unreadable("is no regular file")
        yield file


def _folder(top: Path, format: str, reading: Reading) -> Iterator[Found | Problem]:  # noqa: A002
    for root, folders, names, descriptor in _walk(top):
        here = Path(root)
        deep = len(here.relative_to(top).parts) >= DEPTH_MAX
        for name in sorted(folders):
            if (here / name).is_symlink():
                yield Problem(str(here / name), None, "is a link; links are not followed")
            elif deep:
                yield Problem(str(here / name), None, f"is more than {DEPTH_MAX} folders deep; it is left")
        reading.skipped += sum(name.startswith(".") for name in folders)
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(MARKDOWN):
                reading.skipped += 1
                continue
            if reading.files >= FILES_MAX:
                yield Problem(str(here / name), None, f"more than {FILES_MAX} files; this and the following are left")
                return
            try:
                with _opened(name, here / name, descriptor) as file:
                    reading.files += 1
                    yield from _markdown(file, here / name, format)
            except _Unreadable as problem:
                yield Problem(str(here / name), None, str(problem))


def _walk(top: Path) -> Iterator[tuple[str, list[str], list[str], int | None]]:
    """By descriptors where the system has that, so that a folder cannot become a link while it is walked."""
    if hasattr(os, "fwalk"):
        yield from os.fwalk(top, follow_symlinks=False)
        return
    for root, folders, names in os.walk(top, followlinks=False):
        yield root, folders, names, None


def _file(file: IO[bytes], path: Path, format: str) -> Iterator[Found | Problem]:  # noqa: A002
    if format in ("markdown", "hermes") or (format == "auto" and path.name.lower().endswith(MARKDOWN)):
        yield from _markdown(file, path, format)
    else:
        yield from _json_lines(file, path, format)


# --- Markdown


def _markdown(file: IO[bytes], path: Path, format: str) -> Iterator[Found | Problem]:  # noqa: A002
    data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise _Unreadable(f"has more than {FILE_BYTES_MAX} bytes; split it")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is no UTF-8 (byte {error.start})") from None
    note = entries(text) if format == "hermes" or (format == "auto" and has_entries(text)) else note_of(text)
    written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC).isoformat(timespec="milliseconds")
    place = _label(str(path))
    common: dict[str, Any] = {
        "source": place,
        "conversation": place,
        "kind": note.kind or "note",
        "time": note.time or written,
    }
    if note.tags:
        common["tags"] = [_label(tag) for tag in note.tags[:32]]
    for part in note.parts:
        under = {"speaker": _label(" > ".join(part.under))} if part.under else {}
        yield Found(str(path), part.line, "item", {"text": part.text, **common, **under})


def _label(text: str) -> str:
    """As much of it as a label holds; the end of it, which tells more of a path."""
    return text if len(text) <= LABEL_CHARS else f"...{text[3 - LABEL_CHARS :]}"


# --- JSON Lines


def _json_lines(file: IO[bytes], path: Path, format: str) -> Iterator[Found | Problem]:  # noqa: A002
    kind = None
    broken: list[Problem] = []
    """Those before the first line that tells the format."""
    number, ended = 0, False
    for number, line in _lines(file):
        problem, value = None, None
        if line is None:
            problem = Problem(str(path), number, f"the line has more than {LINE_BYTES_MAX} bytes")
        elif line.strip():
            try:
                value = _object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except ValueError as error:
                problem = Problem(str(path), number, f"no JSON object: {error}")
        if value is not None and kind is None:
            kind = _kind(value, format)
            yield from broken
            broken = []
            if kind == "record":
                continue
        if value is not None and kind == "record" and value.get("type") == "end":
            ended = True
        elif value is not None and kind is not None:
            yield _graph(path, number, value) if kind == "graph" else Found(str(path), number, kind, value)
        elif problem is not None and kind is not None:
            yield problem
        elif problem is not None:
            broken.append(problem)
            if len(broken) == BROKEN_MAX:
                break
    if broken:
        raise _Unreadable(f"is of no format that is known ({broken[0].what}); name it with --format")
    if kind == "record" and not ended:
        yield Problem(str(path), number, "the file ends before its end: this export was cut")


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None in the place of one that is too long."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        whole = len(line) <= LINE_BYTES_MAX
        while not line.endswith(b"\n") and (more := file.readline(LINE_BYTES_MAX)):
            whole, line = False, more
        yield number, line if whole else None


def _object(line: bytes) -> dict[str, Any]:
    """The object; ValueError for anything else, and for what no UTF-8 can carry."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("too deep") from None
    except UnicodeError:
        raise ValueError("no UTF-8, or half of a character") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}")  # noqa: TRY004  (one kind of refusal for every line)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return made


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _kind(first: Mapping[str, Any], format: str) -> str:  # noqa: A002
    """Who stores the lines of this file: `record`, `item`, or `graph` for entities and relations."""
    if format in ("auto", "jsonl") and "format" in first:
        if first != FORMAT:
            raise _Unreadable(f"is of format {json.dumps(first)[:80]}; this version reads {json.dumps(FORMAT)}")
        return "record"
    if format == "server-memory" or (format == "auto" and first.get("type") in ("entity", "relation")):
        return "graph"
    if format == "jsonl" or "text" in first:
        return "item"
    raise _Unreadable("is of no format that is known; name it with --format")


def _graph(path: Path, number: int, value: dict[str, Any]) -> Found | Problem:
    match value:
        case {"type": "entity", "name": str(), "entityType": str(), "observations": list(observations)}:
            if all(isinstance(text, str) for text in observations):
                return Found(str(path), number, "entity", value)
        case {"type": "relation", "from": str(), "to": str(), "relationType": str()}:
            return Found(str(path), number, "relation", value)
    return Problem(str(path), number, "neither an entity with name, entityType and observations, nor a relation")
