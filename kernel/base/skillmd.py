"""SKILL.md: front matter between `---` lines, then Markdown. Two verdicts on one text. Pure.

    strict     what the reference validator of the Agent Skills standard says (skills-ref 0.1.1): the same verdict, the same words. It
               reads StrictYAML, where everything is a string and flow style, anchors, tags and duplicate keys are refused
    loads      what hosts accept: any YAML with a description; values that break YAML because nobody quoted them are quoted and read
               again; a name that is not the folder's is a warning

Guarantees
1. No text raises: a verdict comes back for every string, however deep, aliased or malformed.
2. `strict` errors come in the reference's order and wording; after `Invalid YAML in frontmatter:` only that prefix is the same.
3. Aliases are never expanded and tags never obeyed: what has them is read as text, or not at all.

StrictYAML is reached over PyYAML's events: its refusals concern the events, not the values. Known gap: U+0085, U+2028 and U+2029 end a line
for PyYAML everywhere, for the reference only in some places. Not here: files and folders (skills.py).
"""

import datetime as dt
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import ArgumentError

__all__ = ["Reading", "check_name", "publishing_errors", "read", "strict_errors"]

FIELDS = ("allowed-tools", "compatibility", "description", "license", "metadata", "name")
NAME_MAX = 64
DESCRIPTION_MAX = 1024
COMPATIBILITY_MAX = 500
FRONT_CHARS_MAX = 32 * 1024
"""PyYAML's scanner is Python: this much is a second. Real front matter has a few hundred characters."""
DEPTH_MAX = 50
"""Brackets within brackets. Its time grows with the cube of that; a thousand is half a minute."""

LENIENT: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C reads ten thousand files in the time in which the other reads a thousand; wheels of PyYAML have it."""
FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
PLAIN_LINE = re.compile(r"^([A-Za-z][\w-]*):[ \t]+([^\s|>'\"\[{&*!%@`#].*|[\[{&*!%@`].*)$")


@dataclass(frozen=True, slots=True)
class Reading:
    """What hosts see in a SKILL.md; `problem` says why they see nothing."""

    name: str
    description: str
    front: dict[str, Any]
    body: str
    problem: str | None
    warnings: tuple[str, ...]


class _Refused(Exception):
    pass


def strict_errors(text: str, folder_name: str) -> list[str]:
    """The reference validator's findings on a SKILL.md in a folder of that name; none means valid."""
    if not text.startswith("---"):
        return ["SKILL.md must start with YAML frontmatter (---)"]
    parts = text.split("---", 2)
    if len(parts) < 3:
        return ["SKILL.md frontmatter not properly closed with ---"]
    try:
        front = _strict_yaml(parts[1])
    except (_Refused, yaml.YAMLError, RecursionError) as error:
        return [f"Invalid YAML in frontmatter: {error}"]
    if not isinstance(front, dict):
        return ["SKILL.md frontmatter must be a YAML mapping"]
    errors = []
    extra = sorted(set(front) - set(FIELDS))
    if extra:
        errors.append(f"Unexpected fields in frontmatter: {', '.join(extra)}. Only {list(FIELDS)} are allowed.")
    missing = "Missing required field in frontmatter: "
    errors += _name_errors(front["name"], folder_name) if "name" in front else [missing + "name"]
    errors += _description_errors(front["description"]) if "description" in front else [missing + "description"]
    if "compatibility" in front:
        errors += _compatibility_errors(front["compatibility"])
    return errors


def _name_errors(value: Any, folder_name: str | None) -> list[str]:
    """The standard's rules for a name; with a folder name, also that the two agree."""
    if not isinstance(value, str) or not value.strip():
        return ["Field 'name' must be a non-empty string"]
    name = unicodedata.normalize("NFKC", value.strip())
    errors = []
    if len(name) > NAME_MAX:
        errors.append(f"Skill name '{name}' exceeds {NAME_MAX} character limit ({len(name)} chars)")
    if name != name.lower():
        errors.append(f"Skill name '{name}' must be lowercase")
    if name.startswith("-") or name.endswith("-"):
        errors.append("Skill name cannot start or end with a hyphen")
    if "--" in name:
        errors.append("Skill name cannot contain consecutive hyphens")
    if not all(c.isalnum() or c == "-" for c in name):
        errors.append(
            f"Skill name '{name}' contains invalid characters. Only letters, digits, and hyphens are allowed."
        )
    if folder_name is not None and unicodedata.normalize("NFKC", folder_name) != name:
        errors.append(f"Directory name '{folder_name}' must match skill name '{name}'")
    return errors


def check_name(name: str) -> None:
    """ArgumentError of what the standard does not take for a name."""
    errors = _name_errors(name, None)
    if errors or unicodedata.normalize("NFKC", name) != name or "/" in name:
        raise ArgumentError(
            "argument.invalid",
            f"{name[:80]!r} is no name for a skill: {'; '.join(errors) or 'it is written otherwise'}.",
        )


def _description_errors(value: Any) -> list[str]:
    if not isinstance(value, str) or not value.strip():
        return ["Field 'description' must be a non-empty string"]
    if len(value) > DESCRIPTION_MAX:
        return [f"Description exceeds {DESCRIPTION_MAX} character limit ({len(value)} chars)"]
    return []


def _compatibility_errors(value: Any) -> list[str]:
    if not isinstance(value, str):
        return ["Field 'compatibility' must be a string"]
    if len(value) > COMPATIBILITY_MAX:
        return [f"Compatibility exceeds {COMPATIBILITY_MAX} character limit ({len(value)} chars)"]
    return []


def publishing_errors(reading: Reading) -> list[str]:
    """What keeps a skill that loads from being served over the MCP skills extension; its path there is ours, so the folder's name may differ."""
    given = reading.front.get("name")
    errors = _name_errors(given, None) + _description_errors(reading.description)
    return errors or ([f"The name {given!r} is written {reading.name!r} in a uri"] if given != reading.name else [])


# --- StrictYAML over events


class _Loader(yaml.SafeLoader):
    """As YAML 1.2 has it: a line that begins with its colon has an empty key."""

    def parse_block_mapping_key(self) -> Any:
        if self.check_token(yaml.ValueToken):
            self.state = self.parse_block_mapping_value
            return self.process_empty_scalar(self.peek_token().start_mark)  # type: ignore[no-untyped-call]
        return super().parse_block_mapping_key()  # type: ignore[no-untyped-call]


def _strict_yaml(text: str) -> Any:
    if len(text) > FRONT_CHARS_MAX:
        raise _Refused(f"{len(text)} characters of front matter; at most {FRONT_CHARS_MAX} are read")
    events: Iterator[Any] = iter(yaml.parse(text, Loader=_Loader))
    next(events)  # the stream begins
    if isinstance(next(events), yaml.StreamEndEvent):
        return None
    value = _node(next(events), events)
    next(events)  # the document ends
    if not isinstance(next(events), yaml.StreamEndEvent):
        raise _Refused("expected a single document")
    return value


def _node(event: Any, events: Iterator[Any]) -> Any:
    if isinstance(event, yaml.AliasEvent):
        raise _Refused(f"an alias (*{event.anchor}) is not allowed{_at(event)}")
    if event.anchor is not None:
        raise _Refused(f"an anchor (&{event.anchor}) is not allowed{_at(event)}")
    if event.tag is not None:
        raise _Refused(f"a tag ({event.tag}) is not allowed{_at(event)}")
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if event.flow_style:
        raise _Refused(f"flow style ([...] or {{...}}) is not allowed, quote the text{_at(event)}")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events))
        return items
    return _mapping(events)


def _mapping(events: Iterator[Any]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    column: int | None = None
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events)
        if not isinstance(key, str):
            raise _Refused(f"a key must be a text{_at(event)}")
        if key in mapping:
            raise _Refused(f"the key {key!r} is there twice{_at(event)}")
        merges = key == "<<" and event.style is None
        event = next(events)
        if isinstance(event, yaml.MappingStartEvent):
            mark: Any = event.start_mark
            if column is not None and mark.column != column:
                raise _Refused(f"this mapping is indented otherwise than the one before{_at(event)}")
            column = mark.column
        untyped = isinstance(event, yaml.ScalarEvent) and event.style is None and event.value in ("=", "<<")
        value = None if untyped else _node(event, events)  # the reference makes neither a text
        if merges and not isinstance(value, dict):
            raise _Refused(f"only a mapping can be merged{_at(event)}")
        if not merges:  # the reference reads what is merged and then does not see it
            mapping[key] = value
    return mapping


def _at(event: Any) -> str:
    return f", line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"


# --- as hosts read it


def read(text: str, folder_name: str) -> Reading:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found = FRONT.match(text)
    if found is None:
        reason = "it is not closed with ---" if text.startswith("---") else "the file does not begin with ---"
        return Reading(folder_name, "", {}, text, f"There is no front matter: {reason}.", ())
    warnings = []
    source, body = found.group(1), text[found.end() :].strip("\n")
    front = _loaded(source)
    if not isinstance(front, dict):
        repaired = _loaded(_quoted(source))
        if not isinstance(repaired, dict):
            reason = front if isinstance(front, str) else "it is not a mapping"
            return Reading(folder_name, "", {}, body, f"The front matter does not load: {reason}", ())
        front = repaired
        warnings.append("The front matter is not YAML as it stands; it was read with its values quoted.")
    description = front.get("description")
    if not isinstance(description, str) or not description.strip():
        return Reading(folder_name, "", front, body, "The front matter has no description.", tuple(warnings))
    given = front.get("name")
    name = unicodedata.normalize("NFKC", str(given).strip()) if given not in (None, "") else folder_name
    if given in (None, ""):
        warnings.append(f"There is no name; the folder's, {folder_name!r}, stands for it.")
    elif name != unicodedata.normalize("NFKC", folder_name):
        warnings.append(f"The name {name!r} is not the folder's, {folder_name!r}.")
    return Reading(name, description.strip(), front, body, None, tuple(warnings))


def _loaded(source: str) -> Any:
    """The value with texts, numbers, lists and mappings only; a text says why there is none."""
    if len(source) > FRONT_CHARS_MAX:
        return f"{len(source)} characters, at most {FRONT_CHARS_MAX} are read."
    steps = (1 if char in "[{" else -1 for char in source if char in "[]{}")
    if max(itertools.accumulate(steps), default=0) > DEPTH_MAX:
        return f"brackets are nested deeper than {DEPTH_MAX}."
    try:
        if "*" in source and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(source, Loader=LENIENT)):
            return "aliases are not read."
        value = _plain(yaml.load(source, Loader=LENIENT))  # noqa: S506  (safe, both)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        # PyYAML lets errors of int() and datetime() through, and of unhashable keys.
        return " ".join(str(error).split()) or type(error).__name__
    return value if isinstance(value, dict) else None


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in value]
        case str() | bool() | int() | None:
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124  (NaN is not JSON)
        case dt.date():
            return value.isoformat()
        case _:
            return str(value)


def _quoted(source: str) -> str:
    """Every top-level `key: value` on one line with its value in quotes."""
    lines = []
    for line in source.split("\n"):
        found = PLAIN_LINE.match(line)
        if found is not None:
            value = found.group(2).rstrip().replace("\\", "\\\\").replace('"', '\\"')
            line = f'{found.group(1)}: "{value}"'  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines)
