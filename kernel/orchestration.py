"""Runs: durable programs and the verbs on them. The fifth primitive, and the one that composes the others.

    verb            does
    start           a row in the journal, then a program that lives; the same key is the same run
    view, list      the run as CONTRACT section 4 shows it; waiting is by event
    send            an answer to an `any` item, or a message, committed with what it causes
    approve         a person's decision on an item, bound to its digest
    control         cancel (a tree, with grace) | pause | resume | retry
    items           what waits for somebody
    recover         at open: every run that has something to do is started again by itself

Guarantees
1. A run belongs to the journal, not to who started it: it goes on when the client, or the kernel, has gone.
2. A person item is answered by a person: through the client that may have caused it only by the operator's leave; never by a program.
3. What a caller was told about a run was on disk before.
4. Another principal's run or item is answered as an unknown one.

Not here: fork and views of differences (not built), host-side workflows (not built), what calls do (calls.py), lives (programs.py).
If the kernel dies between any two lines: every verb is one transaction, and the next open starts what has something to do.
"""

import asyncio
import hashlib
import json
import sys
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from .base import budgets, items
from .base.errors import ArgumentError, Conflict, Denied, GuestError, KernelFault, LimitExceeded, Overloaded
from .base.lessons import Recording
from .base.limits import Limits
from .base.policy import Grants, Policy
from .base.ports import LOCAL, Ports, rfc3339
from .base.replay import PATH_VERSION
from .base.shown import dumps, loads, name_of
from .base.store import Store, Transaction
from .calls import CAPABILITIES, Calls, recording_of, source_of
from .flights import GuestCell, House
from .journal import Delivery, Item, Journal, NewRun, RunRow
from .memory import Memory
from .programs import Fate, Program
from .sandbox import Sandbox
from .scheduler import Scheduler
from .skills import Skills

__all__ = ["Handle", "Runs"]

STATUSES = ("working", "input_required", "completed", "failed", "cancelled")
VIEWS = ("summary", "steps", "events", "log")
ACTIONS = ("cancel", "pause", "resume", "retry")
NAME_CHARS_MAX = 200
MEMORY_MB = 512
GIVEN_UP_BY_KERNEL = ("guest.killed", "guest.stopped", "guest.turn", "host.", "sandbox.", "budget.")
"""Ends that are the kernel's decision and not the program's: such a run can go on from its journal."""


class Handle:
    """A started run, in the embedded API."""

    def __init__(self, runs: "Runs", run_id: str, principal: str, *, replayed: bool) -> None:
        self.id = run_id
        self.replayed = replayed
        """The key was known: this run had been started before."""
        self._runs = runs
        self._principal = principal

    async def status(self) -> str:
        status: str = (await self._runs.view(self.id, principal=self._principal))["status"]
        return status

    async def result(self) -> Any:
        """Wait for the end; the output, or the error that ended it."""
        row = await self._runs.ended(self.id, principal=self._principal)
        if row.status == "completed":
            return loads(row.output or b"null")
        if row.status == "cancelled":
            raise Conflict("run.cancelled", f"{self.id} was cancelled.")
        error = loads(row.error or "{}")
        raise GuestError(error.get("code", "run.failed"), str(error.get("message", "")))

    async def cancel(self, reason: str | None = None) -> None:
        await self._runs.control(self.id, "cancel", reason, principal=self._principal)


class Runs:
    def __init__(
        self, *, store: Store, ports: Ports, limits: Limits, policy: Policy, scheduler: Scheduler, sandbox: Sandbox, memory: Memory,
        skills: Skills, journal: Journal,
    ) -> None:  # fmt: skip
        self._store = store
        self._ports = ports
        self._limits = limits
        self._policy = policy
        self._scheduler = scheduler
        self._sandbox = sandbox
        self._journal = journal
        self._skills = skills
        self._runtime = runtime_digest(sandbox.python)
        self._programs: dict[int, Program] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._changes: dict[str, set[weakref.ref[asyncio.Future[None]]]] = {}
        self._listeners: dict[str, set[asyncio.Queue[Mapping[str, Any] | None]]] = defaultdict(set)
        self._closing = False
        # Half of the sandboxes at most are programs: they wait for sandboxes that they start themselves.
        places = max(1, min(limits.runs_working_max, limits.sandboxes_max // 2))
        self._places = Scheduler(slots=places, queue_max=limits.queue_max)
        calls = Calls(
            store=store, journal=self._journal, ports=ports, sandbox=sandbox, memory=memory, skills=skills, child=self._child,
            wake=self._wake, cancel=self._cancel, change=self._change, granted=self._granted,
        )  # fmt: skip
        self._house = House(
            store=store, journal=self._journal, ports=ports, limits=limits, runtime=self._runtime, spawn=scheduler.spawn,
            launch=self._launch, serve=calls.serve, admit=self._admit, crowded=lambda: self._places.load().waiting > 0,
            changed=self._changed, noted=self._noted,
        )  # fmt: skip

    # --- start

    async def start(
        self, program: str | None = None, input: Any = None, *, skill: str | None = None, idempotency_key: str | None = None,  # noqa: A002
        name: str | None = None, budget: Mapping[str, Any] | None = None, packages: Sequence[str] = (),
        files: Mapping[str, str] | None = None, memory_mb: int = MEMORY_MB, wait_s: float = 0.0, grants: Grants | None = None,
        principal: str = LOCAL,
    ) -> Handle:  # fmt: skip
        """`grants` are the starter's, and the run's for its whole life; without them those of the kernel."""
        source = await source_of(self._skills, program, skill, grants, principal)
        new = self._new(
            principal, program=source, given={} if input is None else input, name=name, key=idempotency_key,
            budget=budgets.checked(budget), packages=packages, files=files, memory_mb=memory_mb,
            grants=None if grants is None else json.dumps(grants.to_wire()),
        )  # fmt: skip
        if self._places.load().waiting >= self._limits.queue_max:
            raise Overloaded(
                f"{self._limits.queue_max} runs wait for a place already. Try again in a second.", retry_after_s=1.0
            )
        row, replayed = await self._store.write(lambda tx: self._created(tx, new))
        if not replayed:
            self._begin(row)
        if wait_s:
            await self._wait(row.run_id, principal, wait_s, _needs_nobody)
        return Handle(self, row.run_id, principal, replayed=replayed)

    def _created(self, tx: Transaction, new: NewRun) -> tuple[RunRow, bool]:
        row, replayed = self._journal.create_in(tx, new)
        if not replayed:
            self._sandbox.check_works()
        return row, replayed

    def _new(
        self, principal: str, *, program: str, given: Any, name: str | None = None, key: str | None = None,
        budget: Mapping[str, float], packages: Sequence[str] = (), files: Mapping[str, str] | None = None, memory_mb: int = MEMORY_MB,
        capabilities: Sequence[str] | None = None, parent_rid: int | None = None, grants: str | None = None,
    ) -> NewRun:  # fmt: skip
        if packages:
            raise Denied(
                "packages.denied", "Programs run with the standard library only. Use packages in kernel.sandbox.run."
            )
        if memory_mb > self._limits.memory_mb_max:
            raise LimitExceeded("limit.exceeded", f"memory_mb is {memory_mb}; at most {self._limits.memory_mb_max}.")
        for label, text, most in (("name", name, NAME_CHARS_MAX), ("idempotency_key", key, NAME_CHARS_MAX)):
            if text is not None and not 0 < len(text) <= most:
                raise ArgumentError("argument.invalid", f"{label} has 1 to {most} characters.")
        return NewRun(
            run_id=self._ports.new_id("run"), principal=principal, program=_storable("program", program), runtime=self._runtime,
            path_version=PATH_VERSION, input=self._json("input", given), seed=self._ports.entropy(32),
            name=None if name is None else _storable("name", name), files=None if not files else self._json("files", _checked_files(files)),
            memory_mb=memory_mb, budget=json.dumps(budget), capabilities=None if capabilities is None else json.dumps(list(capabilities)),
            parent_rid=parent_rid, idempotency_key=None if key is None else _storable("idempotency_key", key), grants=grants,
        )  # fmt: skip

    def _json(self, label: str, value: Any) -> bytes:
        try:
            data = dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError("argument.invalid", f"{label} is not JSON: {error}.") from None
        if len(data) > self._limits.value_bytes_max:
            raise LimitExceeded(
                "limit.exceeded", f"{label} has {len(data)} bytes as JSON; at most {self._limits.value_bytes_max}."
            )
        return data

    def _child(self, parent: RunRow, given: Mapping[str, Any], budget: Mapping[str, float]) -> NewRun:
        """The run that a program spawns: its principal's, with no more than the parent has."""
        mine = CAPABILITIES if parent.capabilities is None else frozenset(json.loads(parent.capabilities))
        wanted = given.get("capabilities")
        unknown = [name for name in wanted or () if name not in CAPABILITIES]
        if unknown:
            raise ArgumentError(
                "argument.invalid",
                f"There is no capability {unknown[0]!r}. There are: {', '.join(sorted(CAPABILITIES))}.",
            )
        kept = sorted(mine if wanted is None else mine & set(wanted))
        narrowed = None if parent.capabilities is None and wanted is None else kept
        return self._new(
            parent.principal, program=given["program"], given=given.get("input", {}), budget=budget, memory_mb=parent.memory_mb, capabilities=narrowed, parent_rid=parent.rid, grants=parent.grants,
        )  # fmt: skip

    # --- see

    async def view(
        self, run_id: str, view: str = "summary", wait_s: float = 0.0, *, principal: str = LOCAL
    ) -> dict[str, Any]:
        if view not in VIEWS:
            raise ArgumentError("argument.invalid", f"view is {view!r}. It is one of {', '.join(VIEWS)}.")
        if wait_s:
            await self._wait(run_id, principal, wait_s, _needs_nobody)

        def query(db: Any) -> tuple[RunRow, dict[str, Any]]:
            row = self._journal.run(db, run_id, principal)
            if view == "summary":
                return row, self._journal.summary(db, row)
            found = {"steps": self._journal.steps, "events": self._journal.events, "log": self._journal.log}[view](
                db, row
            )
            return row, {"run_id": row.run_id, "status": row.status, view: found}

        row, shown = await self._store.read(query)
        if shown.get("status") == "working" and self._sandbox.tier == "none":
            shown["detail"] = "no_sandbox"
        if view == "steps":
            shown["steps"] = sorted(shown["steps"] + self._steps_in_flight(row), key=lambda step: step["n"])
        return shown

    def _steps_in_flight(self, row: RunRow) -> list[dict[str, Any]]:
        program = self._programs.get(row.rid)
        if program is None:
            return []
        return [
            {
                "n": flight.call.n, "path": flight.call.path, "kind": flight.call.method, "status": "working",
                "name": name_of(flight.call.method, flight.call.arguments),
                "attempts": 1, "started_at": rfc3339(row.epoch + flight.started_t), "effect": flight.call.effect,
            }
            for flight in program.flights.open.values()
        ]  # fmt: skip

    async def recording(self, run_id: str, *, principal: str = LOCAL) -> Recording:
        """A completed run with every answer that it got, to be learnt from."""

        def query(db: Any) -> tuple[RunRow, Sequence[tuple[Any, ...]]]:
            row = self._journal.run(db, run_id, principal)
            return row, self._journal.answers(db, row)

        return recording_of(*await self._store.read(query))

    async def list(
        self, status: str | None = None, limit: int = 20, cursor: str | None = None, *, principal: str = LOCAL
    ) -> dict[str, Any]:
        if status is not None and status not in STATUSES:
            raise ArgumentError("argument.invalid", f"status is {status!r}. It is one of {', '.join(STATUSES)}.")
        if not 1 <= limit <= 100:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to 100.")
        return await self._store.read(
            lambda db: self._journal.listing(db, principal, status=status, limit=limit, cursor=cursor)
        )

    async def ended(self, run_id: str, *, principal: str = LOCAL) -> RunRow:
        """Wait for the end, however long."""
        while True:
            change = self._change(run_id)
            row = await self._store.read(lambda db: self._journal.run(db, run_id, principal))
            if row.ended_at is not None:
                return row
            await change

    @asynccontextmanager
    async def notes(self, run_id: str, *, principal: str = LOCAL) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """`async with runs.notes(id) as notes: async for note in notes`: {"log": text} and {"progress": {...}} as they come,
        until the run has ended. What came before is in `view`.
        """
        queue: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(maxsize=1000)
        self._listeners[run_id].add(queue)

        async def each() -> AsyncIterator[Mapping[str, Any]]:
            while over is None and (note := await queue.get()) is not None:
                yield note

        try:
            over = (await self._store.read(lambda db: self._journal.run(db, run_id, principal))).ended_at
            yield each()
        finally:
            self._listeners[run_id].discard(queue)
            if not self._listeners[run_id]:
                del self._listeners[run_id]

    async def counts(self) -> dict[str, int]:
        """Runs that have not ended, of all principals, by status."""
        counted = "SELECT status, count(*) FROM run WHERE ended_at IS NULL GROUP BY status"
        return dict(await self._store.read(lambda db: db.execute(counted).fetchall()))

    async def due(self, within_s: float = 0.0) -> Sequence[tuple[int, str]]:
        """Runs that have something to do now or `within_s`, of all principals; one that waits for a person or for longer has not."""
        until = self._ports.clock.now() + within_s
        return await self._store.read(lambda db: self._journal.due(db, until))

    # --- answer

    async def items(self, *, principal: str = LOCAL) -> Sequence[dict[str, Any]]:
        """Everything that waits for a person or a model, of all runs of the principal, oldest first."""
        waiting = await self._store.read(lambda db: self._journal.waiting(db, principal=principal))
        return [{"run_id": item.run_id, **item.wire()} for item in waiting]

    async def send(
        self,
        run_id: str,
        item_id: str | None = None,
        topic: str | None = None,
        content: Any = None,
        *,
        principal: str = LOCAL,
    ) -> None:
        if (item_id is None) == (topic is None):
            raise ArgumentError("argument.invalid", "Name either the item that is answered or the topic of a message.")
        if topic is not None:
            data = self._json("content", content)

            def message(tx: Transaction) -> RunRow:
                row = self._journal.run(tx, run_id, principal)
                self._journal.send_in(tx, row, topic=_storable("topic", topic), content=data, sender=None)
                return row

            row = await self._store.write(message)
            self._wake(row.rid, run_id)
            return
        item = await self._item(run_id, str(item_id), principal)
        if item.answer_by != "any":
            raise items.elsewhere(item.item_id, "by run_send", self._store.folder)
        await self._deliver(item, "ok", self._json("content", _answer(item, content)), channel="any")

    async def approve(
        self, run_id: str, item_id: str, digest: str, decision: str, *, note: str | None = None,
        channel: Literal["person", "host"] = "host", grants: Grants | None = None, principal: str = LOCAL,
    ) -> None:  # fmt: skip
        """`grants` are those of the connection that answers, as far as the channel is the host."""
        item = await self._item(run_id, item_id, principal)
        if item.answer_by != "person":
            raise ArgumentError(
                "argument.invalid", f"Item {item_id} asks for content, not for a decision. Use run_send."
            )
        items.check_approval(
            item_digest=item.digest, given=digest, decision=decision, channel=channel, item_id=item_id,
            allowed_in_host=self._policy.narrowed(grants or self._policy.grants).approve_in_host, folder=self._store.folder,
        )  # fmt: skip
        if item.deadline is not None and self._ports.clock.now() >= item.deadline:
            raise Conflict("item.expired", f"Item {item_id} expired at {rfc3339(item.deadline)}, which is a no.")
        yes = decision == "approve"
        if item.kind == "approve":
            await self._deliver(item, "ok", dumps(yes), note=note, channel=channel)
        elif item.reason == "in_doubt" and not yes:
            problem = GuestError(
                "step.in_doubt",
                f"Call {item.cseq} was interrupted and may have had its effect; a person decided not to repeat it.",
            )
            await self._deliver(item, "error", dumps(problem.to_wire()), note=note, channel=channel)
        else:
            await self._resolve(item, yes=yes, note=note, channel=channel)

    async def answer_item(
        self, item_id: str, decision: str, note: str | None = None, *, principal: str = LOCAL
    ) -> dict[str, Any]:
        """A person's decision at the command line, where the item was just shown; the run afterwards."""
        item = await self._store.read(lambda db: self._journal.item(db, item_id, principal))
        await self.approve(
            item.run_id, item_id, item.digest, decision, note=note, channel="person", principal=principal
        )
        return await self.view(item.run_id, principal=principal)

    async def _item(self, run_id: str, item_id: str, principal: str) -> Item:
        def query(db: Any) -> Item:
            self._journal.run(db, run_id, principal)
            item = self._journal.item(db, item_id, principal)
            if item.run_id != run_id:
                raise ArgumentError("argument.invalid", f"Item {item_id} belongs to {item.run_id}, not to {run_id}.")
            if item.status != "waiting":
                raise Conflict("item.closed", f"Item {item_id} waits no more: it is {item.status}.")
            return item

        return await self._store.read(query)

    async def _deliver(
        self, item: Item, kind: str, value: bytes, *, note: str | None = None, channel: str | None = None
    ) -> None:
        """The answer and its delivery are one transaction; then the program is told, or started."""
        program = self._programs.get(item.rid)

        def unit(tx: Transaction) -> Delivery:
            row = self._journal.row(tx, item.rid)
            t = max(0.0, self._ports.clock.now() - row.epoch) if program is None else program.t()
            self._journal.settle_item_in(tx, item, status="answered", answer=value, note=note, channel=channel)
            counted = item.method in budgets.COUNTED
            return self._journal.deliver_in(tx, item.rid, kind=kind, t=t, value=value, call=item.call, counted=counted)

        delivery = await self._store.write(unit)
        program = self._programs.get(item.rid)
        if program is not None:
            program.recorded(delivery, item.call, counted=item.method in budgets.COUNTED)
        self._wake(item.rid, item.run_id)

    async def _resolve(self, item: Item, *, yes: bool, note: str | None, channel: str) -> None:
        def unit(tx: Transaction) -> None:
            self._journal.settle_item_in(tx, item, status="answered", answer=dumps(yes), note=note, channel=channel)
            if item.reason == "in_doubt":
                self._journal.forget_intent_in(tx, item.rid, item.cseq)
            elif not yes:
                error = {"code": "run.diverged", "message": item.prompt, "fault": "guest", "retryable": False}
                self._journal.end_in(tx, item.rid, status="failed", detail=None, output=None, error=error)

        await self._store.write(unit)
        program = self._programs.get(item.rid)
        if program is not None and item.reason == "in_doubt":
            program.resolved(item.cseq)
        if yes:
            self._wake(item.rid, item.run_id)
        else:
            self._noted(item.run_id, None)
        self._changed(item.run_id)

    # --- control

    async def control(self, run_id: str, action: str, reason: str | None = None, *, principal: str = LOCAL) -> None:
        if action not in ACTIONS:
            raise ArgumentError("argument.invalid", f"action is {action!r}. It is one of {', '.join(ACTIONS)}.")
        row = await self._store.read(lambda db: self._journal.run(db, run_id, principal))
        if row.ended_at is not None and action != "retry":
            raise Conflict("run.ended", f"{run_id} has ended ({row.status}); there is nothing to {action}.")
        match action:
            case "cancel":
                await self._cancel(run_id, principal, reason)
            case "pause":
                await self._pause(row, reason)
            case "resume":
                await self._resume(row)
            case _:
                await self._retry(row)
        self._changed(run_id)

    async def _cancel(self, run_id: str, principal: str, reason: str | None = None) -> None:
        """The run and all it started. Its program gets the cancellation as a delivery, and time for its cleanup."""

        def unit(tx: Transaction) -> tuple[RunRow, Delivery | None, list[str]]:
            row = self._journal.run(tx, run_id, principal)
            program = self._programs.get(row.rid)
            children = self._journal.children(tx, row.rid)
            if row.ended_at is not None or row.cancelled:
                return row, None, children
            self._journal.event_in(tx, row.rid, "cancel", reason)
            if row.lives == 0 or row.detail == "diverged":  # no process that could clean up
                self._journal.end_in(tx, row.rid, status="cancelled", detail=None, output=None, error=None)
                return row, None, children
            t = max(0.0, self._ports.clock.now() - row.epoch) if program is None else program.t()
            self._journal.change_in(tx, row.rid, cancelled=1, paused=0, status="working", detail="cancelling")
            tx.execute("UPDATE item SET status='withdrawn' WHERE rid=? AND status='waiting'", (row.rid,))
            return row, self._journal.deliver_in(tx, row.rid, kind="cancel", t=t), children

        row, delivery, children = await self._store.write(unit)
        program = self._programs.get(row.rid)
        if program is not None and delivery is not None:
            program.pausing, program.cancelling = False, True
            program.recorded(delivery, None)
        if delivery is not None:
            self._wake(row.rid, run_id)
        else:
            self._noted(run_id, None)
        self._changed(run_id)
        for child in children:
            await self._cancel(child, principal, reason or f"its parent {run_id} was cancelled")

    async def _pause(self, row: RunRow, reason: str | None) -> None:
        def unit(tx: Transaction) -> None:
            self._journal.change_in(tx, row.rid, paused=1)
            tx.execute(
                "UPDATE run SET detail='paused' WHERE rid=? AND status='working' AND ended_at IS NULL", (row.rid,)
            )
            self._journal.event_in(tx, row.rid, "pause", reason)

        await self._store.write(unit)
        program = self._programs.get(row.rid)
        if program is not None:
            program.pausing = True
            program.poke()

    async def _resume(self, row: RunRow) -> None:
        if not row.paused:
            raise Conflict("run.not_paused", f"{row.run_id} is not paused.")

        def unit(tx: Transaction) -> None:
            self._journal.change_in(tx, row.rid, paused=0, parked=-1)
            tx.execute("UPDATE run SET detail=NULL WHERE rid=? AND detail='paused'", (row.rid,))
            self._journal.event_in(tx, row.rid, "resume")

        await self._store.write(unit)
        program = self._programs.get(row.rid)
        if program is not None:
            program.pausing = False
        self._wake(row.rid, row.run_id)

    async def _retry(self, row: RunRow) -> None:
        """Only what the kernel gave up goes on: a program that ended by itself would end in the same way again."""
        if row.detail == "diverged" and row.ended_at is None:

            def again(tx: Transaction) -> None:
                for item in self._journal.waiting(tx, rid=row.rid):
                    if item.reason == "diverged":
                        self._journal.settle_item_in(tx, item, status="withdrawn")

            await self._store.write(again)
        elif row.status == "failed" and str(loads(row.error or "{}").get("code")).startswith(GIVEN_UP_BY_KERNEL):
            await self._store.write(lambda tx: self._journal.reopen_in(tx, row.rid))
        elif row.status == "failed":
            raise Conflict(
                "run.not_retryable",
                f"{row.run_id} was ended by its own program, which would end so again. Start a new run.",
            )
        else:
            raise Conflict("run.not_failed", f"{row.run_id} is {row.status}; only a failed or diverged run is retried.")
        self._wake(row.rid, row.run_id)

    # --- lives

    async def recover(self) -> None:
        """Start every run that has something to do, and keep an eye on those that sleep."""
        await self._start_due()
        self._scheduler.spawn(self._wake_sleepers(), "sleeping runs")

    async def _start_due(self) -> None:
        for rid, run_id in await self.due():
            self._wake(rid, run_id)

    async def _wake_sleepers(self) -> None:
        """Runs that were parked before this kernel opened; one that parks here keeps its own alarm."""
        while True:
            now = self._ports.clock.now()
            wake_at = await self._store.read(lambda db, now=now: self._journal.next_wake(db, now))  # type: ignore[misc]
            if wake_at is None:
                return
            await self._ports.clock.sleep(min(max(wake_at - now, 0.001), 3600.0))
            await self._start_due()

    def _wake(self, rid: int, run_id: str) -> None:
        """There is something for the run: tell its program, or start one."""
        program = self._programs.get(rid)
        if program is not None:
            program.poke()
        elif not self._closing and rid not in self._tasks:
            self._tasks[rid] = self._scheduler.spawn(self._woken(rid), f"{run_id} wakes")
        self._changed(run_id)

    async def _woken(self, rid: int) -> None:
        try:
            row = await self._store.read(lambda db: self._journal.row(db, rid))
        finally:
            del self._tasks[rid]
        if row.ended_at is None and not row.paused and row.detail != "diverged" and self._sandbox.tier != "none":
            self._begin(row)  # where no code can be run it stays as it is, for a kernel that can

    def _begin(self, row: RunRow) -> None:
        if row.rid in self._programs or self._closing:
            return
        program = self._programs[row.rid] = Program(row, self._house)
        if self._places.load().waiting:
            for other in self._programs.values():
                other.poke()  # one that only waits gives its place away
        self._tasks[row.rid] = self._scheduler.spawn(self._attend(program), row.run_id)

    async def _attend(self, program: Program) -> None:
        row, fate = program.row, None
        try:
            fate = await program.live()
        except Exception as error:  # noqa: BLE001  a fault of ours must be seen in the run that met it
            fault = KernelFault.of(error).to_wire()
            await self._store.write(
                lambda tx: self._journal.end_in(tx, row.rid, status="failed", detail=None, output=None, error=fault)
            )
        finally:
            del self._programs[row.rid]
            del self._tasks[row.rid]
            self._changed(row.run_id)
        if fate is not Fate.SICK:
            self._wake(row.rid, row.run_id)  # resumed or retried while its process was ending: that met the old program
        if fate in (Fate.PAUSED, Fate.DIVERGED):
            return
        self._noted(row.run_id, None)
        if row.parent_rid is not None and not self._closing:
            parent = await self._store.read(lambda db: self._journal.row(db, row.parent_rid or 0))
            self._wake(parent.rid, parent.run_id)

    async def _admit(self, principal: str, life: Callable[[], Awaitable[Fate]]) -> Fate:
        return await self._places.run(principal, life)

    async def _launch(self, row: RunRow, start: Mapping[str, Any]) -> GuestCell:
        return await self._sandbox.launch(
            start, timeout_s=None, memory_mb=row.memory_mb, grants=self._granted(row), principal=row.principal, run_id=row.run_id,
        )  # fmt: skip

    def _granted(self, row: RunRow) -> Grants:
        """What the starter had, as far as the operator allows it today."""
        if row.grants is None:
            return self._policy.grants
        return self._policy.narrowed(Grants.from_wire(json.loads(row.grants)))

    async def close(self) -> None:
        """End every process; the journal has what they were doing."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._places.close()

    # --- events

    def _change(self, run_id: str) -> "asyncio.Future[None]":
        """Done at the next change of the run. Of one that nobody holds any more nothing is left: not every waiter waits to the end."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._changes.setdefault(run_id, set())

        def gone(held: "weakref.ref[asyncio.Future[None]]") -> None:
            waiting.discard(held)
            if not waiting and self._changes.get(run_id) is waiting:
                del self._changes[run_id]

        waiting.add(weakref.ref(future, gone))
        return future

    def _changed(self, run_id: str) -> None:
        for held in list(self._changes.pop(run_id, ())):
            future = held()
            if future is not None and not future.done():
                future.set_result(None)

    def _noted(self, run_id: str, note: Mapping[str, Any] | None) -> None:
        """To all who listen; None: the run has ended."""
        for queue in self._listeners.get(run_id, ()):
            if queue.full():
                queue.get_nowait()  # a slow listener misses the oldest; the log has it
            queue.put_nowait(note)

    async def _wait(self, run_id: str, principal: str, wait_s: float, until: Callable[[RunRow], bool]) -> None:
        """At most `wait_s`, and no polling."""
        enough = self._scheduler.spawn(self._ports.clock.sleep(wait_s), f"{run_id} waited for")
        try:
            while not enough.done():
                change = self._change(run_id)
                row = await self._store.read(lambda db: self._journal.run(db, run_id, principal))
                if until(row):
                    return
                await asyncio.wait({change, enough}, return_when=asyncio.FIRST_COMPLETED)
                change.cancel()
        finally:
            enough.cancel()


def _needs_nobody(row: RunRow) -> bool:
    """It has ended, or somebody else has to act."""
    return row.ended_at is not None or row.status == "input_required" or bool(row.paused)


def _answer(item: Item, content: Any) -> Any:
    """What the program gets: the object of the schema; without one the text."""
    if item.schema is not None:
        items.check(loads(item.schema), content)
        return content
    text = content.get("text") if isinstance(content, Mapping) else content
    if not isinstance(text, str):
        raise ArgumentError(
            "argument.schema", f'Item {item.item_id} is answered with {{"text": "..."}}. Send it again.'
        )
    return text


def _checked_files(files: Mapping[str, str]) -> dict[str, str]:
    for path, text in files.items():
        parts = Path(path).parts
        if not path or path.startswith("/") or ".." in parts or "\0" in path:
            raise ArgumentError("path.outside", f"{path!r} is not a path inside the workspace.")
        if not isinstance(text, str):
            raise ArgumentError("argument.invalid", f"files[{path!r}] is a text.")
    return dict(files)


def _storable(label: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError("argument.invalid", f"{label} has a lone surrogate, which is no text. Remove it.") from None
    return text


def runtime_digest(python: str) -> str:
    """What a replay depends on beside the program: the guests' interpreter and the code of the cell."""
    digest = hashlib.blake2b(f"{python or sys.version}".encode(), digest_size=16)
    for path in sorted((Path(__file__).parent / "cell").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
