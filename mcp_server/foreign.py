"""Replies in the form of other tools, for the profiles that stand in for them (profiles.py).

A default tool answers with an object and its text, and refuses with `code: message`. The clients of another tool expect its texts to
the letter, and some check `structuredContent` against its output schema even in a refusal.

Not here: which tools these are. Pure values, nothing to lose when the process dies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_kernel.base.errors import ArgumentError, Denied
from agent_kernel.memory import Added

__all__ = ["Said", "Worded", "believed", "left_out"]


@dataclass(frozen=True, slots=True)
class Worded:
    """A reply that goes out as it is."""

    text: str
    structured: Mapping[str, Any] | None = None
    note: str | None = None
    """A text block of its own behind the first: what the other tool's form has no place for."""


def believed(added: Iterable[Added]) -> None:
    """Refuse what was held back: a file or a graph of which parts wait for a person is neither there nor not there."""
    if any(one.quarantined for one in added):
        raise Denied(
            "memory.quarantine",
            "What comes through this channel waits in quarantine here, and files and graphs cannot wait in parts. Nothing was stored."
            " Use memory_add, or ask the operator.",
        )


def left_out(added: Iterable[Added]) -> str | None:
    """The secrets that were, by kind and place."""
    places = [
        f"{one.kind} at characters {one.start} to {one.end} of a {one.field}" for new in added for one in new.masked
    ]
    return f"Left out of what was stored: {', '.join(places[:10])}." if places else None


class Said(ArgumentError):
    """A refusal whose whole text is what the other tool says."""

    def __init__(self, text: str) -> None:
        super().__init__("memory.refused", text)
