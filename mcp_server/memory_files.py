"""The commands of Anthropic's memory tool (`memory_20250818`) over the kernel's memory: files under /memories.

    view {path, view_range?}           create {path, file_text}          str_replace {path, old_str, new_str?}
    insert {path, insert_line, insert_text}          delete {path}       rename {old_path, new_path}

A file is a fact of kind `file` whose key is its path. An edit is a new value of that key, so every version stays in history; deleting
retracts; renaming supersedes under the new key. A directory is what the paths say: there are no empty ones but /memories.

Guarantees
1. Texts are those of the tool's documentation; where it is silent (snippets, line counts, final line ends) as the helper of its
   Python SDK does it.
2. Every path is beneath /memories. One with `..` in any spelling, also percent-encoded or after a backslash, is refused.
3. A command happens as a whole, in one transaction, on what is there at that moment.
4. A view never exceeds the room of a reply: what is left out is named with the `view_range`, or the uri, that shows it.

Not here: the schema (profiles.py). Sizes: a file as one fact (`memory_text_bytes_max`), a path as a label.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from agent_kernel import Kernel
from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.live import Live
from agent_kernel.memory import Added, Memory

from .foreign import Said, Worded, believed, left_out
from .values import compact

__all__ = ["COMMANDS", "perform"]

ROOT = "/memories"
LINES_MAX = 999_999
NUMBER_WIDTH = 6
NOTICE_BYTES = 400
"""Room for what a cut view says about the rest."""
AROUND = 2
"""Lines of a snippet before and after the change."""


class Command(NamedTuple):
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "view": Command(("path",), ("view_range",)),
    "create": Command(("path", "file_text")),
    "str_replace": Command(("path", "old_str"), ("new_str",)),
    "insert": Command(("path", "insert_line", "insert_text")),
    "delete": Command(("path",)),
    "rename": Command(("old_path", "new_path")),
}


class Files:
    """The files of one transaction."""

    def __init__(
        self,
        memory: Memory,
        db: sqlite3.Connection,
        label_chars_max: int,
        text_bytes_max: int,
        author: Mapping[str, Any],
    ) -> None:
        self.memory = memory
        self.db = db
        self.label_chars_max = label_chars_max
        self.text_bytes_max = text_bytes_max
        self.author = author
        self.added: list[Added] = []

    # --- what is there

    def place(self, path: str) -> str:
        """The one spelling of `path`; Said when it is not beneath /memories."""
        parts = path.split("/")
        if parts[:2] != ["", ROOT[1:]]:
            raise Said(f"Path must start with {ROOT}, got: {path}")
        if ".." in re.split(r"[/\\]", unquote(path)) or not path.isprintable():
            raise Said(f"Path {path} would escape {ROOT} directory")
        if len(path) > self.label_chars_max:
            raise Said(f"Error: A path has at most {self.label_chars_max} characters, this one has {len(path)}")
        return "/".join([ROOT, *(part for part in parts[2:] if part not in ("", "."))])

    def file(self, place: str) -> Live | None:
        return next(self.memory.live_in(self.db, "file", key=place), None)

    def beneath(self, place: str) -> Iterator[Live]:
        return self.memory.live_in(self.db, "file", keys=f"{place}/")

    def exists(self, place: str) -> bool:
        return place == ROOT or self.file(place) is not None or next(self.beneath(place), None) is not None

    def _editable(self, place: str, otherwise: str) -> str:
        found = self.file(place)
        if found is None:
            raise Said(otherwise)
        return found.text

    # --- what is written

    def put(self, path: str, place: str, text: str, supersedes: Sequence[str] = ()) -> None:
        size = len(text.encode())
        if size > self.text_bytes_max:
            raise Said(
                f"Error: {path} would have {size} bytes; at most {self.text_bytes_max} fit. Split it over several files"
            )
        for at in range(len(ROOT) + 1, len(place)):
            if place[at] == "/" and self.file(place[:at]) is not None:
                raise Said(f"Error: {place[:at]} is a file, so {path} cannot be below it")
        item = {"text": text, "key": place, "kind": "file", "supersedes": list(supersedes)}
        self.added += self.memory.add_in(self.db, [item], **self.author)
        believed(self.added)

    def create(self, path: str, file_text: str) -> str:
        place = self.place(path)
        if self.exists(place):
            raise Said(f"Error: File {path} already exists")
        self.put(path, place, file_text)
        return f"File created successfully at: {path}"

    def str_replace(self, path: str, old_str: str, new_str: str = "") -> str:
        place = self.place(path)
        text = self._editable(place, f"Error: The path {path} does not exist. Please provide a valid path.")
        if not old_str:
            raise Said("No replacement was performed: old_str is empty.")
        times = text.count(old_str)
        if times == 0:
            raise Said(f"No replacement was performed, old_str `{old_str}` did not appear verbatim in {path}.")
        if times > 1:
            lines = ", ".join(str(line) for line in _lines_of(text, old_str))
            raise Said(
                f"No replacement was performed. Multiple occurrences of old_str `{old_str}` in lines: {lines}. Please ensure it is unique"
            )
        line = text[: text.index(old_str)].count("\n")
        new = text.replace(old_str, new_str)
        self.put(path, place, new)
        first = max(line - AROUND, 0)
        snippet = _numbered(new.split("\n")[first : line + AROUND + 1], first + 1)
        return (
            "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
            + "\n".join(snippet)
        )

    def insert(self, path: str, insert_line: int, insert_text: str) -> str:
        place = self.place(path)
        text = self._editable(place, f"Error: The path {path} does not exist")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        if not 0 <= insert_line <= len(lines):
            raise Said(
                f"Error: Invalid `insert_line` parameter: {insert_line}."
                f" It should be within the range of lines of the file: [0, {len(lines)}]"
            )
        lines.insert(insert_line, insert_text.rstrip("\n"))
        new = "\n".join(lines)
        self.put(path, place, new if new.endswith("\n") else f"{new}\n")
        return f"The file {path} has been edited."

    def delete(self, path: str) -> str:
        place = self.place(path)
        if place == ROOT:
            raise Said(f"Error: Cannot delete the {ROOT} directory itself")
        found = self.file(place)
        gone = [found.id] if found else [file.id for file in self.beneath(place)]
        if not gone:
            raise Said(f"Error: The path {path} does not exist")
        self.memory.forget_in(self.db, gone, reason="deleted by the memory tool", **self.author)
        return f"Successfully deleted {path}"

    def rename(self, old_path: str, new_path: str) -> str:
        old, new = self.place(old_path), self.place(new_path)
        if old == ROOT:
            raise Said(f"Error: Cannot rename the {ROOT} directory itself")
        if self.exists(new):
            raise Said(f"Error: The destination {new_path} already exists")
        found = self.file(old)
        moved = [found] if found else list(self.beneath(old))
        if not moved:
            raise Said(f"Error: The path {old_path} does not exist")
        if new.startswith(f"{old}/"):
            raise Said(f"Error: {old_path} cannot be moved below itself")
        for file in moved:
            place = self.place(new + (file.key or "")[len(old) :])
            self.put(new_path, place, file.text, supersedes=[file.id])
        return f"Successfully renamed {old_path} to {new_path}"

    # --- what is shown

    def view(self, path: str, room: int, view_range: Sequence[int] = ()) -> str:
        place = self.place(path)
        file = self.file(place)
        if file is None:
            if not self.exists(place):
                raise Said(f"The path {path} does not exist. Please provide a valid path.")
            return _listing(place, list(self.beneath(place)), room)
        lines = file.text.split("\n")
        if len(lines) > LINES_MAX:
            raise Said(f"File {path} exceeds maximum line limit of 999,999 lines.")
        start, end = 0, len(lines)
        if len(view_range) == 2:
            start = max(1, view_range[0]) - 1
            end = end if view_range[1] == -1 else view_range[1]
        numbered = _numbered(lines[start:end], start + 1)
        head = f"Here's the content of {path} with line numbers:"
        count = _fitting(head, numbered, room - NOTICE_BYTES)
        if count == len(numbered):
            return f"{head}\n" + "\n".join(numbered)
        if not count:
            cut = _cut(numbered[0], room - NOTICE_BYTES - len(compact(head)))
            numbered, count = [f"{cut}\n[The line is cut; whole at memory://{file.id}]", *numbered[1:]], 1
        rest = f"[Lines {start + count + 1} to {start + len(numbered)} are not shown; view_range shows them]"
        return "\n".join([head, *numbered[:count], *([rest] if count < len(numbered) else [])])


async def perform(kernel: Kernel, arguments: Mapping[str, Any], author: Mapping[str, Any]) -> Worded:
    """One command; its arguments are checked against their names and types already."""
    given = dict(arguments)
    name = given.pop("command")
    command = COMMANDS[name]
    for needed in command.needs:
        if needed not in given:
            raise ArgumentError(
                "argument.missing", f"memory: {name} needs {needed!r}. Required: {', '.join(command.needs)}."
            )
    used = {key: value for key, value in given.items() if key in (*command.needs, *command.takes)}
    limits = kernel.policy.limits

    def act(db: sqlite3.Connection) -> Worded:
        files = Files(kernel.memory, db, limits.memory_label_chars_max, limits.memory_text_bytes_max, author)
        if name == "view":
            return Worded(files.view(room=limits.reply_bytes_max - 512, **used))
        return Worded(getattr(files, name)(**used), note=left_out(files.added))

    return await (kernel.store.read(act) if name == "view" else kernel.store.write(act))


def _numbered(lines: Sequence[str], first: int) -> list[str]:
    return [f"{number:>{NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines, first)]


def _lines_of(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield text.count("\n", 0, at) + 1
        at = text.find(part, at + 1)


def _fitting(head: str, lines: Sequence[str], room: int) -> int:
    """How many lines fit behind the head, as JSON."""
    left = room - len(compact(head))
    for count, line in enumerate(lines):
        left -= len(compact(line))
        if left < 0:
            return count
    return len(lines)


def _cut(line: str, room: int) -> str:
    """The beginning of a line, at most `room` bytes as JSON."""
    keep = room
    while len(compact(line[:keep])) > room:
        keep = keep * 3 // 4
    return line[:keep]


def _listing(place: str, files: Sequence[Live], room: int) -> str:
    """Two levels of a directory, each in the order of names, without what is hidden."""
    sizes: dict[str, int] = {}
    for file in files:
        parts = (file.key or "")[len(place) + 1 :].split("/")
        size = len(file.text.encode())
        for depth in range(1, min(len(parts), 2) + 1):
            shown = "/".join(parts[:depth]) + ("/" if depth < len(parts) else "")
            if not any(part.startswith(".") or part == "node_modules" for part in parts[:depth]):
                sizes[shown] = sizes.get(shown, 0) + size
    total = sum(len(file.text.encode()) for file in files)
    head = f"Here're the files and directories up to 2 levels deep in {place}, excluding hidden items and node_modules:"
    lines = [
        f"{_size(sizes[name])}\t{place}/{name}" for name in sorted(sizes, key=lambda name: name.rstrip("/").split("/"))
    ]
    lines = [f"{_size(total)}\t{place}", *lines]
    count = _fitting(head, lines, room - NOTICE_BYTES)
    rest = [] if count == len(lines) else [f"[{len(lines) - count} more are not shown; view a directory of them]"]
    return "\n".join([head, *lines[:count], *rest])


def _size(size_bytes: int) -> str:
    """`0B`, `512B`, `1.5K`, `4K`."""
    unit, size = 0, float(size_bytes)
    while size >= 1024 and unit < 3:
        unit, size = unit + 1, size / 1024
    return (f"{size:.0f}" if size == int(size) else f"{size:.1f}") + "BKMG"[unit]
