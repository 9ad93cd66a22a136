"""A Markdown file as facts: one for each paragraph, list item and code block, under the headings that it stands below. Pure.

    ---                                   front matter: title, tags, type and a date are used; what else is there is a fact itself
    title: Coffee
    ---
    # Brewing                             -> said by `Coffee > Brewing`
    - Pour over is clearer #taste         -> `Pour over is clearer #taste`
      - with a fine filter                   what is indented below an item belongs to it

Guarantees
1. Every line with words in it is in some fact, in `speaker` (headings) or in its fields (front matter). Rules and blank lines say nothing.
2. Any text gives facts, in time that grows with its length; YAML is not evaluated, HTML and links stay text.

MEMORY.md and USER.md of Hermes are lists of entries between lines that hold a section sign; `entries` reads those.

Not here: files, sizes, what can be stored (readers.py, the kernel).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_kernel.base.errors import KernelError
from agent_kernel.base.facts import moment

__all__ = ["Note", "Part", "entries", "has_entries", "note_of"]

SIGN = "§"
BULLET = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
FENCE = re.compile(r" {0,3}(```+|~~~+)")
RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
FIELD = re.compile(r"([A-Za-z][\w -]{0,63}):(?:[ \t]+(.*))?$")
FRONT_LINES_MAX = 500
DATES = ("updated", "updated_at", "modified", "last_updated", "date", "created", "created_at")
"""Names of a date in front matter, the one that says most about now first."""


class Part(NamedTuple):
    line: int
    text: str
    under: tuple[str, ...]
    """Title and headings."""


@dataclass(slots=True)
class Note:
    parts: list[Part] = field(default_factory=list)
    tags: tuple[str, ...] = ()
    kind: str | None = None
    time: float | None = None


def has_entries(text: str) -> bool:
    return any(line.strip() == SIGN for line in text.split("\n"))


def entries(text: str) -> Note:
    parts, start, kept = [], 1, list[str]()
    for number, line in enumerate([*text.split("\n"), SIGN], 1):
        if line.strip() != SIGN:
            kept.append(line)
            continue
        blank = next((i for i, entry in enumerate(kept) if entry.strip()), None)
        if blank is not None:
            parts.append(Part(start + blank, "\n".join(kept).strip(), ()))
        start, kept = number + 1, []
    return Note(parts)


def note_of(text: str) -> Note:
    lines = text.split("\n")
    note, title, first = _front(lines)
    note.parts += _parts(lines, first, title)
    if title and not note.parts:
        note.parts.append(Part(2, title, ()))
    return note


# --- front matter


def _front(lines: list[str]) -> tuple[Note, str | None, int]:
    """The note with what its front matter says, the title, and the index of the first line behind it."""
    if lines[0].rstrip() != "---":
        return Note(), None, 0
    end = next((i for i in range(1, min(len(lines), FRONT_LINES_MAX)) if lines[i].rstrip() in ("---", "...")), None)
    if end is None:
        return Note(), None, 0
    groups: list[tuple[str, str, list[str]]] = []
    for line in lines[1:end]:
        found = FIELD.match(line.rstrip())
        if found:
            groups.append((found[1].lower().replace(" ", "_"), (found[2] or "").strip(), [line]))
        elif groups:
            groups[-1][2].append(line)
        elif line.strip():
            groups.append(("", "", [line]))
    note, title, rest = Note(), None, list[str]()
    dates: dict[str, float] = {}
    for name, value, group in groups:
        below = [line.strip() for line in group[1:] if line.strip()]
        when = _date(value) if name in DATES and not below else None
        if when is not None:
            dates[name] = when
        elif name == "title" and value and not below:
            title = _unquoted(value)
        elif name == "type" and re.fullmatch(r"[\w -]{1,64}", _unquoted(value)) and not below:
            note.kind = _unquoted(value)
        elif name == "tags" and (tags := _tags(value, below)) is not None:
            note.tags = tags
        else:
            rest += group
    note.time = next((dates[name] for name in DATES if name in dates), None)
    if any(line.strip() for line in rest):
        note.parts.append(Part(2, "\n".join(rest).strip(), (title,) if title else ()))
    return note, title, end + 1


def _date(value: str) -> float | None:
    try:
        return moment(_unquoted(value), "date")
    except KernelError:
        return None


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _tags(value: str, below: list[str]) -> tuple[str, ...] | None:
    """`[a, b]`, `a, b`, or a list of lines; None when it is something else."""
    if below:
        if value or not all(line.startswith("- ") for line in below):
            return None
        found = [line[2:] for line in below]
    else:
        found = (value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value).split(",")
    return tuple(dict.fromkeys(tag for tag in (_unquoted(part.strip()) for part in found) if tag))


# --- the body


class _Body:
    """Blocks as they come, below the headings seen so far."""

    def __init__(self, title: str | None) -> None:
        self.title = title
        self.headings: dict[int, tuple[int, str]] = {}
        """Level -> line and text."""
        self.fresh: tuple[int, str] | None = None
        """A heading with nothing below it yet: if that stays so, it is a fact itself."""
        self.start = 0
        self.block: list[str] = []

    def under(self) -> tuple[str, ...]:
        path = [text for _, (_, text) in sorted(self.headings.items()) if text]
        return tuple(path) if not self.title or path[:1] == [self.title] else (self.title, *path)

    def add(self, line: str, number: int) -> None:
        if not self.block:
            self.start = number
        self.block.append(line)

    def end_block(self) -> Iterator[Part]:
        text = "\n".join(self.block).strip("\n").rstrip()
        self.block = []
        bullet = BULLET.match(text)
        text = text[bullet.end() :].strip() if bullet else text
        if text.strip():
            self.fresh = None
            yield Part(self.start, text, self.under())

    def heading(self, level: int, text: str, number: int) -> Iterator[Part]:
        yield from self.end_block()
        if self.fresh is not None and level <= max(self.headings, default=0):
            yield from self.end_section()
        self.headings = {known: where for known, where in self.headings.items() if known < level}
        self.headings[level] = (number, text)
        self.fresh = (number, text) if text else None

    def end_section(self) -> Iterator[Part]:
        if self.fresh is not None:
            yield Part(*self.fresh, self.under()[:-1])
            self.fresh = None


def _parts(lines: list[str], first: int, title: str | None) -> Iterator[Part]:
    body, fence, gap = _Body(title), None, False
    for number, line in enumerate(lines[first:], first + 1):
        if fence is not None:
            body.add(line, number)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
                if not BULLET.match(body.block[0]):
                    yield from body.end_block()
            continue
        in_item = bool(body.block) and BULLET.match(body.block[0]) is not None
        indented = line.startswith(("  ", "\t"))
        if not line.strip():
            if in_item:
                gap = True
                body.add(line, number)
            else:
                yield from body.end_block()
            continue
        if in_item and not indented and (gap or BULLET.match(line)):
            yield from body.end_block()
            in_item = False
        gap = False
        opening = FENCE.match(line) or (in_item and FENCE.match(line.strip()))
        if opening:
            fence = opening[1]
            if not (in_item and indented):
                yield from body.end_block()
            body.add(line, number)
        elif not (in_item and indented) and (found := HEADING.match(line)):
            yield from body.heading(len(found[1]), found[2] or "", number)
        elif not in_item and len(body.block) == 1 and (found := UNDERLINE.match(line)):
            text, body.block = body.block[0].strip(), []
            yield from body.heading(1 if found[1][0] == "=" else 2, text, number - 1)
        elif not (in_item and indented) and RULE.match(line):
            yield from body.end_block()
        elif BULLET.match(line) and not in_item:
            yield from body.end_block()
            body.add(line, number)
        else:
            body.add(line, number)
    yield from body.end_block()
    yield from body.end_section()
