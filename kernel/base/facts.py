"""What a caller may say about one fact, and what is said back: fields, types and sizes, times, levels of trust. Pure.

    text, key?, kind?, conversation?, speaker?, time?, tags?, source?, supersedes?, expires_at?

Times are RFC 3339 (`2026-11-23T14:08:41Z`), with what people also write allowed: a blank for the T, no zone (UTC), a date alone, Unix
seconds. A date alone means its first moment, or its last where the question is "until when".

Guarantees
1. Every refusal names the item and the field, and for an unknown field the nearest right one.
2. What passes can be stored: it is text that UTF-8 can carry, within the limits.
3. `screened` lets no known kind of secret through but by the operator's rule, and never repeats one in what it says.

Not here: who writes and how far he is trusted; that is never a field of an item.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from . import credentials
from .errors import ArgumentError, LimitExceeded
from .limits import Limits

__all__ = [
    "TRUST", "Added", "Hit", "Hits", "Item", "Masked", "Similar", "check_names", "check_texts", "item_of", "moment", "sane", "screened",
    "screened_item", "trust_of",
]  # fmt: skip

TRUST = ("web", "tool", "guest", "agent", "user")
"""Least first; the index is what is stored. By channel: a page, another server's tool, code in a sandbox, the model, a person."""

FIELDS = ("text", "key", "kind", "conversation", "speaker", "time", "tags", "source", "supersedes", "expires_at")
MAY_BE_EMPTY = ("file", "observation", "relation")
"""Kinds that are laid out for other tools' clients, which may store nothing under a name."""
YEARS = (datetime(1, 1, 2, tzinfo=UTC).timestamp(), datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Item:
    text: str
    key: str | None
    kind: str
    conversation: str | None
    speaker: str | None
    time: float | None
    tags: tuple[str, ...]
    source: str | None
    supersedes: tuple[str, ...]
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Similar:
    id: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Masked:
    """A secret that was left out: what it was, and which characters of what was given."""

    field: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Added:
    id: str
    duplicate: bool
    superseded: tuple[str, ...]
    similar: tuple[Similar, ...]
    masked: tuple[Masked, ...] = ()
    quarantined: bool | None = None
    """True: it is kept and not found until a person releases it."""


@dataclass(frozen=True, slots=True)
class Hit:
    id: str
    text: str
    score: float | None
    """Share of the best hit's score; None without a query. Absolute scores would tell how often other principals use a word."""
    time: str
    recorded_at: str | None
    """When it was learnt, where that is not `time`."""
    conversation: str | None
    speaker: str | None
    key: str | None
    tags: tuple[str, ...]
    trust: str
    source: str | None
    client: str | None
    run_id: str | None
    step: str | int | None
    confirmed: int | None
    """How often it was said again."""
    retired: str | None
    """None for what is live; else why it is not: superseded by ..., retracted, expired."""
    why: Mapping[str, Mapping[str, float]] | None = None
    """Where it was asked for: `terms`, the part of each in the score, and `times`, what their sum was multiplied with."""


@dataclass(frozen=True, slots=True)
class Hits:
    hits: tuple[Hit, ...]
    more: bool
    cursor: str | None


def item_of(given: Mapping[str, Any], number: int, limits: Limits) -> Item:
    where = f"items[{number}]"
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "argument.invalid", f"{where} is a {type(given).__name__}; give an object with at least `text`."
        )
    check_names(given, FIELDS, f"{where} has no field")
    text = given.get("text")
    if not isinstance(text, str) or not (text.strip() or given.get("kind") in MAY_BE_EMPTY):
        raise ArgumentError("argument.invalid", f"{where}.text must be a text that is not empty.")
    sane(text, f"{where}.text", None)
    size = len(text.encode())
    if size > limits.memory_text_bytes_max:
        raise LimitExceeded(
            "limit.exceeded",
            f"{where}.text has {size} bytes; at most {limits.memory_text_bytes_max} are kept of one fact. Split it.",
        )
    labels = {name: _label(given, name, where, limits) for name in ("key", "kind", "conversation", "speaker", "source")}
    return Item(
        text=text,
        key=labels["key"],
        kind=labels["kind"] or "fact",
        conversation=labels["conversation"],
        speaker=labels["speaker"],
        time=_time(given, "time", where),
        tags=_texts(given, "tags", where, limits),
        source=labels["source"],
        supersedes=_texts(given, "supersedes", where, limits),
        expires_at=_time(given, "expires_at", where),
    )


def check_names(given: Iterable[str], known: Sequence[str], refusal: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ArgumentError("argument.unknown", f"{refusal} {name!r}. {hint}")


def check_texts(value: Any, name: str) -> None:
    """Refuse what is no list of texts; one text is none, though Python would take it apart."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ArgumentError("argument.invalid", f"{name} must be a list of texts.")
    for part in value:
        sane(part, f"an entry of {name}", None)


def screened(text: str, where: str, rule: str) -> tuple[str, list[Masked]]:
    """The text as it may be stored: as it is, without its secrets, or not at all. `rule` as base/policy.py has it."""
    found = [] if rule == "allow" else credentials.find(text)
    if not found:
        return text, []
    if rule == "mask":
        field = where.rpartition(".")[2]
        return credentials.masked(text, found), [Masked(field, one.kind, one.start, one.end) for one in found]
    places = ", ".join(f"{one.kind} at characters {one.start} to {one.end}" for one in found[:5])
    raise ArgumentError(
        "memory.secret",
        f"{where} holds what looks like a secret: {places}. Nothing was stored. Leave it out and say where it is kept instead.",
    )


def screened_item(item: Item, number: int, rule: str) -> tuple[Item, tuple[Masked, ...]]:
    masked: list[Masked] = []

    def clean(field: str, text: str) -> str:
        kept, found = screened(text, f"items[{number}].{field}", rule)
        masked.extend(found)
        return kept

    texts = {field: getattr(item, field) for field in ("text", "key", "kind", "conversation", "speaker", "source")}
    kept: dict[str, Any] = {field: None if text is None else clean(field, text) for field, text in texts.items()}
    tags = tuple(clean("tags", tag) for tag in item.tags)
    return (dataclasses.replace(item, tags=tags, **kept), tuple(masked)) if masked else (item, ())


def trust_of(name: str) -> int:
    if name not in TRUST:
        raise ArgumentError("argument.invalid", f"{name!r} is no level of trust. Known: {', '.join(TRUST)}.")
    return TRUST.index(name)


def sane(text: str, name: str, chars_max: int | None) -> None:
    """Refuse what UTF-8 cannot carry, and what is too long."""
    if not isinstance(text, str):
        raise ArgumentError("argument.invalid", f"{name} must be a text, not {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            "argument.invalid", f"{name} holds half of a character (a lone surrogate) at position {error.start}."
        ) from None
    if chars_max is not None and len(text) > chars_max:
        raise LimitExceeded("limit.exceeded", f"{name} has {len(text)} characters; at most {chars_max}. Shorten it.")


def moment(value: Any, name: str, *, end: bool = False) -> float:
    """Unix seconds of what the caller calls a time."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            value = "too far away"
    elif isinstance(value, str):
        seconds = _parsed(value.strip(), end=end)
    if not YEARS[0] <= seconds <= YEARS[1]:
        raise ArgumentError("argument.invalid", f"{name} is {value!r}; give a time like 2026-11-23T14:08:41Z.")
    return seconds


def _parsed(text: str, *, end: bool) -> float:
    try:
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return (day + timedelta(days=1)).timestamp() - 0.001 if end else day.timestamp()
        time = datetime.fromisoformat(text.upper())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _time(given: Mapping[str, Any], name: str, where: str) -> float | None:
    value = given.get(name)
    return None if value is None else moment(value, f"{where}.{name}")


def _label(given: Mapping[str, Any], name: str, where: str, limits: Limits) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    sane(value, f"{where}.{name}", limits.memory_label_chars_max)
    return value if isinstance(value, str) and value.strip() else None


def _texts(given: Mapping[str, Any], name: str, where: str, limits: Limits) -> tuple[str, ...]:
    value = given.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise ArgumentError("argument.invalid", f"{where}.{name} must be a list of texts.")
    if len(value) > limits.memory_tags_max:
        raise LimitExceeded(
            "limit.exceeded", f"{where}.{name} has {len(value)} entries; at most {limits.memory_tags_max}."
        )
    for part in value:
        sane(part, f"{where}.{name}", limits.memory_label_chars_max)
    return tuple(dict.fromkeys(value))
