"""What each call of a program does: one method of the table for each name of the wire. Composes the primitives for orchestration.

    effect in the answer's transaction     memory.add, memory.forget (retract), memory.edit, send, spawn
    executed, then recorded                sandbox.run, sandbox.export, skill, tool, model (with a configured one), memory.search, memory.blocks
    waits, with its row in the journal     sleep, receive, join (of a child), approve, ask, model (without one)
    in the guest                           step

Guarantees
1. Kernel effects happen exactly once: they commit with the answer that reports them. What is executed outside may run once more for each
   kill that interrupts it, unless its effect is at_most_once.
2. A run acts for its principal and no more: no argument names a principal, memory that a program writes has trust `guest`, and a call
   outside the run's capabilities is `capability.denied`. A child has at most its parent's capabilities and what is left of its budget.
3. Nothing here answers an item: a program cannot approve what it asked.
4. An argument that the method does not have is refused by name.

Not here: order, recording, intents (flights.py), the verbs of callers (orchestration.py).
If the kernel dies: what has no answer is called again with the same ordinal; timers, items and messages are found again by it.
"""
# ruff: noqa: ARG002, SLF001  (all entries of the table take the same arguments, and the table stands below the class)

import asyncio
import base64
import contextlib
import dataclasses
import difflib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

from .base import budgets, items
from .base.errors import ArgumentError, CallerError, Conflict, Denied, GuestError
from .base.export import Leaving
from .base.lessons import Answered, Recording
from .base.policy import Grants
from .base.ports import Ports
from .base.shown import dumps, loads, name_of, received
from .base.store import Store, Transaction
from .flights import PARSE_ON_LOOP_BYTES, Answer, Flight
from .journal import Journal, NewRun, RunRow
from .memory import Memory
from .programs import Program
from .sandbox import Sandbox
from .skills import Skills

__all__ = ["CAPABILITIES", "Calls", "recording_of", "source_of", "wire"]

CAPABILITIES = frozenset({"sandbox.run", "sandbox.export", "tool", "memory.add", "memory.search", "memory.forget", "memory.edit", "memory.blocks",
                          "skill", "spawn", "approve", "ask", "model", "send", "receive"})  # fmt: skip
"""What a parent can leave out for its child. Steps, timers and joining are everybody's."""
NOT_WHILE_CANCELLED = frozenset({"spawn", "approve", "ask", "model"})
TEXT_CHARS_MAX = 20_000
WAIT_S_MAX = 1e9
"""30 years; the end of a longer wait may have no date that can be shown."""

_Method: TypeAlias = Callable[["Calls", Program, Flight, dict[str, Any]], Awaitable[Answer]]
_TEXT, _OBJECT, _LIST, _NUMBER, _ANY = str, dict, list, (int, float), object
_ARGUMENTS: Mapping[str, Mapping[str, tuple[Any, bool]]] = {
    "sandbox.run": {
        "code": (_TEXT, True), "language": (_TEXT, False), "files": (_OBJECT, False), "stdin": (_TEXT, False),
        "timeout_s": (_NUMBER, False), "memory_mb": (int, False), "packages": (_LIST, False), "allow_hosts": (_LIST, False),
    },
    "sandbox.export": {"files": (_LIST, True), "to": (_TEXT, True), "overwrite": (bool, False)},
    "memory.add": {"items": (_LIST, True)},
    "memory.search": {
        "query": (_TEXT, False), "key": (_TEXT, False), "conversation": (_TEXT, False), "tags": (_LIST, False), "since": (_ANY, False),
        "until": (_ANY, False), "as_of": (_ANY, False), "limit": (int, False), "cursor": (_TEXT, False), "ids": (_LIST, False),
        "kind": (_TEXT, False), "known_at": (_ANY, False), "min_trust": (_TEXT, False), "include_retired": (bool, False),
        "explain": (bool, False),
    },
    "memory.forget": {
        "ids": (_LIST, False), "source": (_TEXT, False), "conversation": (_TEXT, False), "mode": (_TEXT, False), "reason": (_TEXT, False),
        "expect_count": (int, False),
    },
    "memory.edit": {"label": (_TEXT, True), "text": (_TEXT, True), "old": (_TEXT, False), "if_version": (int, False)},
    "memory.blocks": {"label": (_TEXT, False)},
    "skill": {"name": (_TEXT, True), "script": (_TEXT, False), "input": (_ANY, False), "args": (_LIST, False)},
    "spawn": {
        "program": (_TEXT, False), "skill": (_TEXT, False), "input": (_ANY, False), "budget": (_OBJECT, False),
        "capabilities": (_LIST, False),
    },
    "join": {"run_id": (_TEXT, True)},
    "cancel": {"run_id": (_TEXT, True)},
    "sleep": {"seconds": (_NUMBER, True)},
    "approve": {"question": (_TEXT, True), "details": (_ANY, False), "timeout_s": (_NUMBER, False)},
    "ask": {"question": (_TEXT, True), "schema": (_OBJECT, True)},
    "model": {"prompt": (_TEXT, True), "schema": (_OBJECT, False)},
    "send": {"run_id": (_TEXT, True), "topic": (_TEXT, True), "content": (_ANY, False)},
    "receive": {"topic": (_TEXT, True), "timeout_s": (_NUMBER, False)},
    "tool": {"name": (_TEXT, True), "arguments": (_OBJECT, False)},
}  # fmt: skip
"""Argument -> its type, and whether it must be there. Null is as good as absent."""


class Calls:
    """`wake`, `cancel` and `change` are orchestration's: start or poke a run, cancel one, wait until something of a run
    changed, and what a run may have.
    """

    def __init__(
        self, *, store: Store, journal: Journal, ports: Ports, sandbox: Sandbox, memory: Memory, skills: Skills,
        child: Callable[[RunRow, Mapping[str, Any], Mapping[str, float]], NewRun], wake: Callable[[int, str], None],
        cancel: Callable[[str, str], Awaitable[None]], change: Callable[[str], "asyncio.Future[None]"], granted: Callable[[RunRow], Grants],
    ) -> None:  # fmt: skip
        self._store = store
        self._journal = journal
        self._ports = ports
        self._sandbox = sandbox
        self._memory = memory
        self._skills = skills
        self._child = child
        self._wake = wake
        self._cancel_run = cancel
        self._change = change
        self._granted = granted

    async def serve(self, program: Program, flight: Flight) -> Answer:
        call, row = flight.call, program.row
        allowed = None if row.capabilities is None else json.loads(row.capabilities)
        if allowed is not None and call.method in CAPABILITIES and call.method not in allowed:
            raise Denied(
                "capability.denied",
                f"This run was started without {call.method}. It has: {', '.join(allowed) or 'none'}.",
            )
        if program.cancelling and call.method in NOT_WHILE_CANCELLED:
            raise Conflict("run.cancelled", f"The run is being cancelled; {call.method} is not possible any more.")
        if call.method == "step":
            return await program.flights.step(flight)
        data = call.arguments
        try:
            given = (
                await asyncio.to_thread(received, data) if len(data) > PARSE_ON_LOOP_BYTES else received(data or b"{}")
            )
        except (ValueError, RecursionError) as error:
            raise ArgumentError("argument.invalid", f"The arguments of {call.method} are not JSON: {error}.") from None
        return await _TABLE[call.method](self, program, flight, _checked(call.method, given))

    # --- executed

    async def _sandbox_run(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        code = given.pop("code")
        ran = await self._sandbox.run(
            code, on_note=program.say, grants=self._granted(program.row), **_origin(program, flight), **given
        )
        return Answer.ok(wire(ran))

    async def _sandbox_export(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        files = [_leaving(file) for file in given["files"]]
        done = await self._sandbox.export(
            files, given["to"], overwrite=given.get("overwrite", False), grants=self._granted(program.row),
            **_origin(program, flight),
        )  # fmt: skip
        return Answer.ok({"files": wire(done)})

    async def _skill(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        invocation = await self._skills.script(
            given["name"], given.get("script"), grants=self._granted(program.row), principal=program.row.principal
        )
        ran = await self._sandbox.run(
            invocation.code, language=invocation.language, argv=(*invocation.argv, *map(str, given.get("args", []))),
            stdin=json.dumps(given.get("input", {})), skill=invocation.skill_folder, on_note=program.say,
            grants=self._granted(program.row), **_origin(program, flight),
        )  # fmt: skip
        return Answer.ok(wire(ran))

    async def _tool(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        if self._ports.tools is None:
            raise Denied(
                "tool.unavailable",
                f"No other server's tools are connected, so {given['name']!r} cannot be called. Use kernel.sandbox.run.",
            )
        return Answer.ok(await self._ports.tools.call(program.row.principal, given["name"], given.get("arguments", {})))

    # --- memory

    async def _memory_add(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        author = _author(program, flight)
        return Answer("ok", lambda tx: dumps(wire(self._memory.add_in(tx, given["items"], **author))))

    async def _memory_search(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        """Read beside the writer; once more inside it when something was erased meanwhile, for the answer is written down."""
        principal, erasures = program.row.principal, self._memory.erasures
        found = await self._memory.search(**given, principal=principal)

        def answer(tx: Transaction) -> bytes:
            current = self._memory.erasures == erasures
            return dumps(wire(found if current else self._memory.search_in(tx, **given, principal=principal)))

        return Answer("ok", answer)

    async def _memory_forget(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        author = _author(program, flight)
        if (
            given.get("mode") == "erase"
        ):  # has to empty the log of the file, which no open transaction can; erased twice is erased
            return Answer.ok(wire(await self._memory.forget(**given, **author)))
        return Answer("ok", lambda tx: dumps(wire(self._memory.forget_in(tx, **given, **author))))

    async def _memory_edit(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        author = _author(program, flight)
        return Answer("ok", lambda tx: dumps(wire(self._memory.edit_in(tx, **given, **author))))

    async def _memory_blocks(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        return Answer.ok(wire(await self._memory.blocks(given.get("label"), principal=program.row.principal)))

    # --- other runs

    async def _spawn(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        parent = program.row
        given["program"] = await source_of(
            self._skills, given.get("program"), given.get("skill"), self._granted(parent), parent.principal
        )
        given["budget"] = budgets.narrowed(budgets.checked(given.get("budget")), program.budget, program.usage())
        new = self._child(parent, given, given["budget"])
        born: list[RunRow] = []

        def effect(tx: Transaction) -> bytes:
            born[:] = [self._journal.create_in(tx, new)[0]]
            return dumps({"run_id": new.run_id})

        return Answer("ok", effect, then=lambda: self._wake(born[0].rid, born[0].run_id))

    async def _join(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        run_id = self._checked_child(program, given)
        while True:
            change = self._change(run_id)
            row = await self._store.read(lambda db: self._journal.run(db, run_id, program.row.principal))
            if row.parent_rid != program.rid:
                raise CallerError(
                    "run.not_a_child", f"{run_id} was not started by this run; only its parent can wait for it."
                )
            if row.ended_at is not None:
                return _joined(row)
            await change

    async def _cancel(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        run_id = self._checked_child(program, given)
        row = await self._store.read(lambda db: self._journal.run(db, run_id, program.row.principal))
        if row.parent_rid == program.rid and row.ended_at is None:
            await self._cancel_run(run_id, program.row.principal)
        return Answer.ok(None)

    def _checked_child(self, program: Program, given: Mapping[str, Any]) -> str:
        run_id: str = given["run_id"]
        if run_id == program.row.run_id:
            raise ArgumentError(
                "argument.invalid", "A run cannot wait for itself, nor cancel itself; return from main."
            )
        return run_id

    async def _send(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        content = dumps(given.get("content"))
        target: list[RunRow] = []

        def effect(tx: Transaction) -> bytes:
            target[:] = [self._journal.run(tx, given["run_id"], program.row.principal)]
            self._journal.send_in(tx, target[0], topic=given["topic"], content=content, sender=program.row.run_id)
            return b"null"

        return Answer("ok", effect, then=lambda: self._wake(target[0].rid, target[0].run_id))

    async def _receive(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        topic, timeout_s = given["topic"], given.get("timeout_s")
        if timeout_s is not None:
            await self._due(program, flight, timeout_s)
        while True:
            change = self._change(program.row.run_id)
            held = {other.holds for other in program.flights.open.values() if other.holds is not None}
            seq = await self._store.read(lambda db, held=held: self._journal.next_message(db, program.rid, topic, held))  # type: ignore[misc]
            if seq is not None and not any(other.holds == seq for other in program.flights.open.values()):
                flight.holds = seq
                return Answer("ok", lambda tx, seq=seq: self._journal.take_in(tx, program.rid, seq, flight.call.n))  # type: ignore[misc]
            if program.t() >= flight.due_t:
                raise GuestError("receive.timeout", f"No message on {topic!r} came within {timeout_s:g} s.")
            if seq is None:
                await self._either(change, program, flight)

    # --- waits

    async def _sleep(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        await self._due(program, flight, given["seconds"])
        await program.clock.until(flight.due_t)
        return Answer.ok(None)

    async def _approve(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        deadline = None
        if given.get("timeout_s") is not None:
            await self._due(program, flight, given["timeout_s"])
            deadline = program.row.epoch + flight.due_t
        flight.for_person = True
        item = await self._put(
            program, flight, prompt=given["question"], details=given.get("details"), deadline=deadline
        )
        await program.clock.until(flight.due_t)

        def expire(tx: Transaction) -> bytes:
            self._journal.settle_item_in(tx, item, status="expired")
            return b"false"

        return Answer("ok", expire)

    async def _ask(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        items.check_schema(given["schema"])
        await self._put(program, flight, prompt=given["question"], schema=given["schema"])
        return await _never()

    async def _model(self, program: Program, flight: Flight, given: dict[str, Any]) -> Answer:
        schema = given.get("schema")
        if schema is not None:
            items.check_schema(schema)
        if self._ports.model is None:
            await self._put(program, flight, prompt=given["prompt"], schema=schema)
            return await _never()
        said = await self._ports.model.complete(given["prompt"], schema)
        if schema is not None:
            items.check(schema, said, at="the model's answer")
        return Answer.ok(said)

    async def _put(self, program: Program, flight: Flight, **asked: Any) -> Any:
        """The item of this call, waiting."""
        if len(asked["prompt"]) > TEXT_CHARS_MAX:
            raise ArgumentError(
                "argument.too_long",
                f"The question has more than {TEXT_CHARS_MAX} characters. Put the rest into details.",
            )
        item = await self._store.write(
            lambda tx: self._journal.item_in(tx, program.row, flight.call, kind=flight.call.method, **asked)
        )
        program.said_to_wait()
        return item

    async def _due(self, program: Program, flight: Flight, seconds: float) -> None:
        """The flight's end on the run's clock: `seconds` from its first start on, whatever was restarted since."""
        if not 0 <= seconds <= WAIT_S_MAX:
            raise ArgumentError("argument.invalid", f"That is no duration in seconds, from 0 to {WAIT_S_MAX:g}.")
        row, n, due_t = program.row, flight.call.n, program.t() + seconds
        flight.due_t = await self._store.write(lambda tx: self._journal.timer_in(tx, row.rid, row.principal, n, due_t))
        program.poke()

    async def _either(self, change: "asyncio.Future[None]", program: Program, flight: Flight) -> None:
        """Until something of the run changed or the flight is due."""
        due = program.later(flight.due_t, f"{program.row.run_id} receive {flight.call.n}")
        try:
            await asyncio.wait({change, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()


_TABLE: Mapping[str, _Method] = {
    "sandbox.run": Calls._sandbox_run, "sandbox.export": Calls._sandbox_export, "skill": Calls._skill, "tool": Calls._tool, "memory.add": Calls._memory_add,
    "memory.search": Calls._memory_search, "memory.forget": Calls._memory_forget, "memory.edit": Calls._memory_edit,
    "memory.blocks": Calls._memory_blocks, "spawn": Calls._spawn, "join": Calls._join, "cancel": Calls._cancel, "send": Calls._send,
    "receive": Calls._receive, "sleep": Calls._sleep, "approve": Calls._approve, "ask": Calls._ask, "model": Calls._model,
}  # fmt: skip


async def _never() -> Answer:
    """Whoever answers the item records the answer and ends this flight."""
    never: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return await never


def _author(program: Program, flight: Flight) -> dict[str, Any]:
    return {**_origin(program, flight), "trust": "guest"}


def _origin(program: Program, flight: Flight) -> dict[str, Any]:
    return {"principal": program.row.principal, "run_id": program.row.run_id, "step": flight.call.n}


async def source_of(
    skills: Skills, program: str | None, skill: str | None, grants: Grants | None, principal: str
) -> str:
    """The source of a run: given, or the program that a run of the skill is."""
    if program is None and skill is not None:
        return await skills.program(skill, grants=grants, principal=principal)
    if program is None or skill is not None:
        raise ArgumentError("argument.invalid", "A run has either a program or a skill. Give one of the two.")
    return program


def recording_of(row: RunRow, answers: Sequence[tuple[Any, ...]]) -> Recording:
    if row.status != "completed":
        raise Conflict(
            "run.not_completed", f"{row.run_id} is {row.status}; a skill is made from a run that has completed."
        )
    told = tuple(
        Answered(method, name_of(method, arguments), kind, None if not value else loads(value), t)
        for _, _, method, kind, arguments, _, _, t, value, _ in answers
    )
    return Recording(row.run_id, row.name, row.program, loads(row.input), loads(row.output or b"null"), row.epoch, told)


def _joined(row: RunRow) -> Answer:
    if row.status == "completed":
        return Answer("ok", row.output or b"null")
    error = {} if row.error is None else loads(row.error)
    why = f": {error.get('code', '')}: {error.get('message', '')}" if error else ""
    return Answer.error(GuestError(f"child.{row.status}", f"The child run {row.run_id} has {row.status}{why}"))


def _checked(method: str, given: Any) -> dict[str, Any]:
    """The arguments that are not null, each known and of its type."""
    known = _ARGUMENTS[method]
    if not isinstance(given, dict):
        raise ArgumentError("argument.invalid", f"The arguments of {method} are an object.")
    present = {name: value for name, value in given.items() if value is not None}
    for name, value in present.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known)}."
            raise ArgumentError("argument.unknown", f"{method} has no argument {name!r}. {hint}")
        wanted = known[name][0]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted not in (bool, object)):
            raise ArgumentError(
                "argument.invalid", f"{method}: {name} is {json.dumps(value)[:80]}, which is not of its type."
            )
    for name, (_, needed) in known.items():
        if needed and name not in present:
            raise ArgumentError("argument.missing", f"{method} needs {name}.")
    return present


def _leaving(file: Any) -> str | Leaving:
    """A uri, or a file of the program's own folder with its bytes."""
    match file:
        case {"uri": str(uri)}:
            return uri
        case {"name": str(name), "base64": str(text)}:
            with contextlib.suppress(ValueError):
                return Leaving(name, base64.b64decode(text, validate=True))
    raise ArgumentError("argument.invalid", "sandbox.export: a file is named by its uri, or is in the current folder.")


def wire(value: Any) -> Any:
    """A value of a primitive as JSON: records by their field names, which are the names of the contract."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: wire(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): wire(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [wire(entry) for entry in value]
    if isinstance(value, PurePath):
        return str(value)
    return value
