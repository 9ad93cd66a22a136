"""What checks do again and again: call and expect, start a run and see it through, read what waits.

`Driver` is what a check gets: a subject, a token that no other check has, and these verbs. It adds no judgement of its own
but the ones its names say: `ok` fails when the tool refused, `refused` when it did not.
"""

import asyncio
import secrets
from typing import Any

from .registry import Failed, expect
from .subject import ANSWER_S, Reply, Subject

__all__ = ["ENDED", "Driver", "items_of"]

ENDED = ("completed", "failed", "cancelled")


class Driver:
    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.place = subject.place
        self.token = "t" + secrets.token_hex(5)
        """Unique to one execution of one check, so that texts, keys and labels never meet another's."""

    async def call(self, tool: str, /, **arguments: Any) -> Reply:
        return await self.subject.call(tool, **arguments)

    async def ok(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        reply = await self.subject.call(tool, **arguments)
        expect(not reply.refused, f"{tool} refused: {reply.text[:300]}")
        return reply.data

    async def refused(self, code: str, tool: str, /, **arguments: Any) -> Reply:
        """The call must be refused with this code; a code that ends in `.` stands for its whole family."""
        reply = await self.subject.call(tool, **arguments)
        expect(reply.refused, f"{tool} accepted what it must refuse with {code}: {reply.text[:300]}")
        fits = reply.code.startswith(code) if code.endswith(".") else reply.code == code
        expect(fits, f"{tool} refused with {reply.code!r}, not with {code!r}: {reply.text[:300]}")
        return reply

    async def python(self, code: str, **arguments: Any) -> dict[str, Any]:
        return await self.ok("sandbox_run", code=code, **arguments)

    async def run(self, program: str, **arguments: Any) -> dict[str, Any]:
        """Start a program and follow it until it ended or needs something."""
        arguments.setdefault("wait_s", 20)
        return await self.follow(await self.ok("run_start", program=program, **arguments))

    async def follow(self, run: dict[str, Any]) -> dict[str, Any]:
        """The run once it ended or needs something."""
        run_id = run.get("run_id")
        expect(isinstance(run_id, str), f"no run_id in {run}")
        try:
            async with asyncio.timeout(ANSWER_S):
                while run.get("status") == "working":
                    run = await self.ok("run_get", run_id=run_id, wait_s=10)
        except TimeoutError:
            raise Failed(f"the run was still working after {ANSWER_S:.0f} s: {run}") from None
        return run

    async def output(self, program: str, **arguments: Any) -> Any:
        """What a program that must complete returns."""
        return self.completed(await self.run(program, **arguments))

    def completed(self, run: dict[str, Any]) -> Any:
        expect(run.get("status") == "completed", f"the run did not complete: {run}")
        return run.get("output")

    async def waiting(self, program: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start a program that asks for something: the run and its first item."""
        run = await self.run(program, **arguments)
        return run, items_of(run)[0]


def items_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    items = run.get("waiting") or []
    expect(run.get("status") == "input_required" and items, f"the run waits for nothing: {run}")
    return list(items)
