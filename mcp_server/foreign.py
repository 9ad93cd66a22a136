"""Replies in the form of other tools, for the profiles that stand in for them (profiles.py).

A default tool answers with an object and its text, and refuses with `code: message`. The clients of another tool expect its texts to
the letter, and some check `structuredContent` against its output schema even in a refusal.

Not here: which tools these are. Pure values, nothing to lose when the process dies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_kernel.base.errors import ArgumentError

__all__ = ["Said", "Worded"]


@dataclass(frozen=True, slots=True)
class Worded:
    """A reply that goes out as it is."""

    text: str
    structured: Mapping[str, Any] | None = None
    note: str | None = None
    """A text block of its own behind the first: what the other tool's form has no place for."""


class Said(ArgumentError):
    """A refusal whose whole text is what the other tool says."""

    def __init__(self, text: str) -> None:
        super().__init__("memory.refused", text)
