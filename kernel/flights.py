"""One call of a program, from the moment it may be executed to its recorded answer; and what all programs share of the kernel.

    begin -> intent (at_most_once) -> serve -> record: effect and answer in one transaction -> delivered by the program's life
    step  -> RUN to the guest, which forked at the call -> RESULT -> record

Guarantees
1. Whatever goes wrong in a call is its answer. Only a store that fails is not: then nothing is recorded and the program's life ends.
2. The effect of an answer that is refused is undone; the refusal is recorded in its place.
3. A call with effect at_most_once begins after its intent is on disk. One that has an intent and no answer waits for a person.
4. A call that nobody waits for is given up, unless its answer is being committed: that one is delivered and the program ignores it.

Not here: what calls do (orchestration.py), when their guest lives (programs.py).
If the kernel dies: a call in flight has no answer; the next life makes it again, with the same ordinal.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .base import budgets, payloads
from .base import replay as r
from .base.errors import GuestError, KernelError, KernelFault
from .base.limits import Limits
from .base.ports import Ports
from .base.runclock import RunClock
from .base.shown import dumps
from .base.store import Store, Transaction
from .cell import frames
from .journal import Delivery, Journal, RunRow

__all__ = ["PARSE_ON_LOOP_BYTES", "Answer", "Ended", "Flight", "Flights", "GuestCell", "House", "Spawn"]

PARSE_ON_LOOP_BYTES = 1 << 16
"""Longer JSON of a guest is parsed on a thread, so that one guest cannot hold the others up."""
TASKS_OF_GUEST = frozenset({"step"})
WAITS = frozenset({"sleep", "receive", "join", "approve", "ask", "model"})
"""Methods that wait for something else than this machine's work: their guest may be parked meanwhile."""
LATE = frozenset({"run.ended", "call.answered", "item.closed"})
"""Refusals that mean: somebody else answered first."""

Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class Printed(Protocol):
    def text(self) -> str: ...


class Used(Protocol):
    @property
    def cpu_s(self) -> float: ...


class Ended(Protocol):
    """How the process of a guest ended, as the reaper saw it."""

    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def stopped_by(self) -> str | None: ...
    @property
    def stdout(self) -> Printed: ...
    @property
    def stderr(self) -> Printed: ...
    @property
    def usage(self) -> Used: ...


class GuestCell(Protocol):
    """One live locked child with its frame socket: sandbox.Cell, and the CPU seconds that it has used by now."""

    async def send(self, frame_bytes: bytes) -> None: ...
    async def receive(self) -> Sequence[frames.Frame]: ...
    async def end(self, *, kill: bool) -> Ended: ...
    def cpu_s(self) -> float: ...


class Answer(NamedTuple):
    """What a call gives: JSON, or a function of the transaction in which the answer is recorded."""

    kind: str
    value: bytes | Callable[[Transaction], bytes]
    then: Callable[[], None] | None = None
    """What to do when it is committed: wake whom it concerns."""

    @staticmethod
    def ok(value: Any) -> "Answer":
        return Answer("ok", dumps(value))

    @staticmethod
    def error(problem: KernelError) -> "Answer":
        return Answer("error", dumps(problem.to_wire()))


@dataclass(slots=True, eq=False)
class Flight:
    """A call that is being executed."""

    call: r.Made
    started_t: float
    task: "asyncio.Task[None] | None" = None
    due_t: float = math.inf
    for_person: bool = False
    recording: bool = False
    holds: int | None = None
    """The message that this call is about to take."""
    resolved: "asyncio.Future[None] | None" = None
    outcome: "asyncio.Future[bytes] | None" = None

    @property
    def waits(self) -> bool:
        return self.call.method in WAITS or self.for_person


@dataclass(frozen=True, slots=True)
class House:
    """What programs need of the kernel; orchestration makes one for all of them."""

    store: Store
    journal: Journal
    ports: Ports
    limits: Limits
    runtime: str
    spawn: Spawn
    launch: Callable[[RunRow, Mapping[str, Any]], Awaitable[GuestCell]]
    serve: Callable[[Any, Flight], Awaitable[Answer]]
    """What a call of this program does."""
    admit: Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
    """Run a life in one of the places for working programs."""
    crowded: Callable[[], bool]
    """Others wait for a place."""
    changed: Callable[[str], None]
    """Something of the run with this id changed."""
    noted: Callable[[str, Mapping[str, Any]], None]


class Flights:
    """The calls of one program that are being executed. `recorded`, `sick` and `poke` tell its life."""

    def __init__(
        self, house: House, row: RunRow, clock: RunClock, *, recorded: Callable[[Delivery, r.Made, bool], None],
        sick: Callable[[KernelError], None], poke: Callable[[], None],
    ) -> None:  # fmt: skip
        self._house = house
        self._row = row
        self._clock = clock
        self._recorded = recorded
        self._sick = sick
        self._poke = poke
        self.open: dict[int, Flight] = {}
        self.tell_guest: Callable[[int], None] | None = None
        """Have the guest run the function of a step; None while there is no guest."""

    def begin(self, call: r.Made, serve: Callable[[Flight], Awaitable[Answer]]) -> None:
        flight = self.open[call.n] = Flight(call, self._clock.t())
        flight.task = self._house.spawn(self._fly(flight, serve), f"{self._row.run_id} call {call.n}")

    def forget(self, n: int) -> None:
        flight = self.open.pop(n, None)
        if flight is not None and flight.task is not None and flight.task is not asyncio.current_task():
            flight.task.cancel()

    def guest_gone(self) -> None:
        """Step functions ended with their guest."""
        self.tell_guest = None
        for n, flight in list(self.open.items()):
            if flight.call.method in TASKS_OF_GUEST and not flight.recording:
                self.forget(n)

    async def drop(self, n: int) -> None:
        """Nobody waits for call `n` any more."""
        flight = self.open.get(n)
        if flight is None or flight.recording:
            return
        self.forget(n)
        if flight.waits:
            await self._house.store.write(lambda tx: self._house.journal.withdraw_in(tx, self._row.rid, n=n))
            self._house.changed(self._row.run_id)

    def outcome(self, n: int, payload: bytes) -> None:
        """RESULT of a step."""
        flight = self.open.get(n)
        if flight is not None and flight.outcome is not None and not flight.outcome.done():
            flight.outcome.set_result(payload)

    def resolved(self, n: int) -> bool:
        """The call in doubt goes on; False when it is not in flight."""
        flight = self.open.get(n)
        if flight is None or flight.resolved is None or flight.resolved.done():
            return False
        flight.resolved.set_result(None)
        return True

    async def step(self, flight: Flight) -> Answer:
        """Tell the guest to run the function, and take the outcome. A guest that goes takes this with it."""
        flight.outcome = asyncio.get_running_loop().create_future()
        if self.tell_guest is not None:
            self.tell_guest(flight.call.n)
        payload = await flight.outcome
        try:
            if len(payload) > PARSE_ON_LOOP_BYTES:
                return Answer(*(await asyncio.to_thread(payloads.step_outcome, payload)))
            return Answer(*payloads.step_outcome(payload))
        except payloads.Malformed as error:
            raise GuestError("step.result", f"The step gave nothing that can be read: {error}.") from None

    async def _fly(self, flight: Flight, serve: Callable[[Flight], Awaitable[Answer]]) -> None:
        try:
            await self._intended(flight)
            answer = await serve(flight)
        except KernelError as error:
            await self._refused(flight, error)
        except Exception as error:  # noqa: BLE001  a fault of ours in one call must not lose the run; it is reported as what it is
            await self._refused(flight, KernelFault.of(error))
        else:
            await self._record(flight, answer)

    async def _refused(self, flight: Flight, error: KernelError) -> None:
        if error.code.startswith("state."):
            self.forget(flight.call.n)  # nothing is recorded: the next life makes the call again
            self._sick(error)
        elif error.code in LATE:
            self.forget(flight.call.n)
        else:
            await self._record(flight, Answer.error(error))

    async def _record(self, flight: Flight, answer: Answer) -> None:
        """The answer and all it did become true here, or neither."""
        call, house, t = flight.call, self._house, self._clock.t()
        flight.recording = True
        counted = call.method in budgets.COUNTED

        def unit(tx: Transaction) -> Delivery:
            value = answer.value if isinstance(answer.value, bytes) else answer.value(tx)
            if len(value) > house.limits.value_bytes_max:
                limit = house.limits.value_bytes_max
                raise GuestError(
                    "limit.value", f"The answer has {len(value)} bytes, the limit is {limit}. Ask for less."
                )
            return house.journal.deliver_in(
                tx,
                self._row.rid,
                kind=answer.kind,
                t=t,
                value=value,
                call=call,
                started_t=flight.started_t,
                counted=counted,
            )

        try:
            delivery = await house.store.write(unit)
        except KernelError as error:
            await self._refused(flight, error)
        except Exception as error:
            if isinstance(answer.value, bytes):
                raise
            await self._refused(flight, KernelFault.of(error))
        else:
            self._recorded(delivery, call, counted)
            if answer.then is not None:
                answer.then()

    async def _intended(self, flight: Flight) -> None:
        call, journal, store, row = flight.call, self._house.journal, self._house.store, self._row
        if call.effect != "at_most_once":
            return
        if await store.write(lambda tx: journal.intent_in(tx, row.rid, row.principal, call.n)):
            return
        flight.for_person = True
        flight.resolved = asyncio.get_running_loop().create_future()
        prompt = (
            f"Call {call.n} ({call.path}: {call.method} {r.shown(call.arguments)}) had begun when it was interrupted, and nobody"
            " knows how far it came. It may run at most once. Approve: execute it again. Deny: the program is told that it is in doubt."
        )
        await store.write(lambda tx: journal.item_in(tx, row, call, kind="resolve", prompt=prompt, reason="in_doubt"))
        self._house.changed(row.run_id)
        self._poke()
        await flight.resolved
        flight.for_person = False
        await store.write(lambda tx: journal.intent_in(tx, row.rid, row.principal, call.n))
