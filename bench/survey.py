"""A table of facts that were looked at once and not timed: what a report shows beside its cases.

Guarantee: every cell says what was seen, or that it could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    question: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
