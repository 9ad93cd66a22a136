"""What the reader of the tour sees: short lines that say what is done, what was expected, what came back.

Guarantees
1. A claim is counted as shown only with `holds`; every other one is printed as FAILED and kept for the verdict at the end.
2. On a terminal there are colours and something that moves while one waits; elsewhere the same words as plain lines.

Not here: what is claimed (tour.py). Nothing is kept when the process dies.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["Page"]


class Page:
    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.width = min(self.console.width, 110) if self.console.is_terminal else 100
        self.claims = 0
        self.failures: list[str] = []

    def title(self, text: str) -> None:
        self.console.print(Text(f"\n{text}", style="bold"))

    def say(self, text: str) -> None:
        self.console.print(Text(textwrap.fill(text, self.width, initial_indent="  ", subsequent_indent="  ")))

    def do(self, text: str) -> None:
        self._lines("do", text)

    def shell(self, command: str) -> None:
        self.console.print(Text(f"            $ {command}", style="cyan"))

    def code(self, text: str) -> None:
        for line in text.splitlines():
            self.console.print(Text(f"            {line}", style="cyan"))

    def claim(self, expected: str, got: str, *, holds: bool) -> None:
        """One claim: it counts as shown only when `holds`."""
        self.claims += 1
        self._lines("expected", expected)
        self._lines("got", got, Text("  ok", style="bold green") if holds else Text("  FAILED", style="bold red"))
        if not holds:
            self.failures.append(f"expected {expected}; got {got}")

    def failed(self, why: str) -> None:
        self.claims += 1
        self.failures.append(why)
        self.console.print(Text(f"  FAILED    {why}", style="bold red"))

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[Any]:
        """Something moves on a terminal; elsewhere nothing is printed for it."""
        with self.console.status(text) if self.console.is_terminal else contextlib.nullcontext() as status:
            yield status

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for index, row in enumerate(rows):
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.console.print(Text("  " + "   ".join(cells), style="dim" if index == 0 else ""))

    def end(self, seconds: float, server_log: str) -> None:
        if self.failures:
            self.title(f"{len(self.failures)} of {self.claims} claims FAILED:")
            for failure in self.failures:
                self._lines("FAILED", failure)
            if server_log.strip():
                self.say("The server's last words:")
                self.console.print(Text(server_log[-3000:], style="dim"))
        else:
            self.console.print(Text(f"\nAll {self.claims} claims held, in {seconds:.0f} seconds.", style="bold green"))

    def _lines(self, label: str, text: str, verdict: Text | None = None) -> None:
        indent = f"  {label:<10}"
        lines = textwrap.wrap(text, self.width - 8, initial_indent=indent, subsequent_indent=" " * 12) or [indent]
        self.console.print(Text("\n".join(lines)) + (verdict or Text()))
