"""A guest program's life over its channel: start, give it the past, serve its calls, park it, run it again. Used by orchestration only.

The process of a program is a cache of its journal: it may be killed at any moment, and another one that is given the recorded
deliveries goes the same way. So a program that waits for a person or for a far timer is killed (parked) and run again when the answer
is in the journal; calls in flight belong to the kernel and survive their guest, except step functions, which run inside it.

    life      launch, START -> prefix streamed -> live: CALL -> flight -> record -> DELIVER; IDLE -> tick, park -> END
    flight    one call that is being executed here: a task that ends by recording its answer, then the answer is sent
    fates     a life ends as ENDED (the run has ended), PARKED, PAUSED, DIVERGED, LOST (the guest died) or SICK (the store failed)

Guarantees
1. A delivery is committed before it is sent, whatever the call's effect in the kernel's file is in the same transaction, and deliveries
   are sent in the order of their numbers, at most `PIECE_BYTES` of them unsent in memory beside what the socket takes.
2. A recorded call is never executed; one in flight is executed at most once by this process, however often its guest dies.
3. An at_most_once call has its intent on disk before it starts; one that has an intent and no answer is a person's to decide.
4. A guest that dies by a signal is run again: at most `reruns_without_progress_max` times without a new delivery, `reruns_max` in all.
   One that leaves by itself without END, breaks the protocol, or does not come to rest within `turn_cpu_s_max` is failed at once.
5. T, the run's clock, never falls, over restarts neither: it is at least the last recorded one.
6. A replay that differs executes nothing more and waits for a person.

Not here: what the calls do (orchestration.py), the rules of the channel (base/replay.py), the process (sandbox.py).
If the kernel dies between any two lines: the run's row says whether it was parked; if not, the next open starts it again.
"""

import asyncio
import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from .base import budgets, payloads
from .base import replay as r
from .base.errors import GuestError, KernelError, Overloaded
from .base.runclock import Alarm, RunClock
from .base.store import Transaction
from .cell import frames
from .flights import PARSE_ON_LOOP_BYTES, Ended, Flights, GuestCell, House
from .journal import LOG_ROWS_MAX, Delivery, RunRow

__all__ = ["Fate", "Program"]

PIECE_BYTES = 1 << 20
FRESH_BYTES_MAX = 1 << 16
"""A larger answer is read back from the store when its turn comes."""
BACKOFF_S = (0.0, 1.0, 5.0)
CLEANUP_CALLS_MAX = 100
REAP_S = 0.3
"""A guest whose socket is closed gets this long to be reaped, so that its own exit is not taken for our kill."""
OUTPUT_LINES_KEPT = 500
TURN_WALL_FACTOR = 10.0
"""A turn is limited in CPU seconds. One that uses none, standing still in a thread or a pipe, is ended after so many times as long."""


class Fate(Enum):
    ENDED = "ended"
    PARKED = "parked"
    PAUSED = "paused"
    DIVERGED = "diverged"
    LOST = "lost"
    SICK = "sick"


@dataclass(slots=True)
class _Life:
    """What belongs to one process of the program."""

    cell: GuestCell
    replay: r.Replay
    idle: r.Idle | None = None
    busy_since: float = 0.0
    turn_cpu_s: float | None = None
    """CPU used by the middle of a long turn; a first look would cost every turn a look."""
    idle_since: float = 0.0
    reconciled: bool = False
    cancel_sent: float | None = None
    calls_since_cancel: int = 0
    runs: list[int] = field(default_factory=list)
    """Steps to be told to run."""
    notes: deque[tuple[int, str]] = field(default_factory=partial(deque, maxlen=LOG_ROWS_MAX))
    progress: str | None = None
    heard: list[frames.Frame] = field(default_factory=list)
    handled: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str | None = None


class Program:
    """One run while this kernel holds it in memory."""

    def __init__(self, row: RunRow, house: House) -> None:
        self.row = row
        self.rid = row.rid
        self.cancelling = bool(row.cancelled)
        self.pausing = False
        self.budget: Mapping[str, float] = json.loads(row.budget)
        self._house = house
        self._committed = 0
        self._consumed = row.consumed
        self._fresh: dict[int, Delivery] = {}
        self._answered: dict[int, r.Made] = {}
        self._life_now: _Life | None = None
        self._poked = asyncio.Event()
        self._fed = asyncio.Event()
        self._alarm = Alarm(house.ports.clock, house.spawn)
        self._sick: KernelError | None = None
        self._ticking = False
        self._stirred = False
        self._guest_timer: float | None = None
        self._calls = row.calls
        self._tool_calls = row.tool_calls
        self._lines = -1
        self._losses = 0
        self._lost_at = -1
        self.clock = RunClock(house.ports.clock, row.epoch)
        self.flights = Flights(
            house, row, self.clock, recorded=lambda delivery, call, counted: self.recorded(delivery, call, counted=counted),
            sick=self._sickened, poke=self._poked.set,
        )  # fmt: skip

    def t(self) -> float:
        return self.clock.t()

    # --- from outside

    def poke(self) -> None:
        """Look again at what there is to do."""
        self._poked.set()

    def resolved(self, n: int) -> None:
        """A person decided that call `n`, which was in doubt, is executed once more."""
        if not self.flights.resolved(n):
            self._stirred = True  # its guest is parked: the next life makes the call again
        self._poked.set()

    def said_to_wait(self) -> None:
        """A call of this run waits for an answer from outside now."""
        self._house.changed(self.row.run_id)
        self._poked.set()

    def later(self, due_t: float, name: str) -> "asyncio.Task[None]":
        """Done when the run's clock is at `due_t`."""
        return self._house.spawn(self.clock.until(due_t), name)

    def recorded(self, delivery: Delivery, call: r.Made | None, *, counted: bool = False) -> None:
        """A delivery of this run was committed, by a flight or by whoever answered an item."""
        self._committed = max(self._committed, delivery.dseq + 1)
        self.clock.at_least(delivery.t)
        life = self._life_now
        if life is not None and delivery.dseq >= life.replay.sent and len(delivery.value) <= FRESH_BYTES_MAX:
            self._fresh[delivery.dseq] = delivery
        if call is not None and call.n not in self._answered:
            self._answered[call.n] = call._replace(arguments=b"")  # what a later life compares with is the digest
            self._calls += 1
            self._tool_calls += counted
            if life is not None:
                life.replay.settled(call)
            self.flights.forget(call.n)
        self._fed.set()
        self._poked.set()
        self._house.changed(self.row.run_id)

    def _sickened(self, error: KernelError) -> None:
        self._sick = error
        self._poked.set()

    def say(self, note: Mapping[str, Any]) -> None:
        """A line of the log or a progress, of the program or of a sandbox that it runs."""
        life = self._life_now
        if life is not None and "log" in note:
            self._lines += 1
            life.notes.append((self._lines, note["log"]))
        elif life is not None:
            life.progress = json.dumps(note["progress"])
        self._house.noted(self.row.run_id, note)

    def usage(self) -> dict[str, float]:
        open_calls = len(self.flights.open)
        open_tools = sum(flight.call.method in budgets.COUNTED for flight in self.flights.open.values())
        return {"wall_s": self.t(), "steps": self._calls + open_calls, "tool_calls": self._tool_calls + open_tools}

    # --- all lives

    async def live(self) -> Fate:
        """Until the run has ended or cannot go on by itself: ENDED, PAUSED, DIVERGED or SICK."""
        sick = 0
        try:
            while True:
                if self.pausing and not any(not flight.waits for flight in self.flights.open.values()):
                    return Fate.PAUSED
                fate = await self._in_its_place()
                if fate is Fate.PARKED:
                    fate = await self._parked() or fate
                match fate:
                    case Fate.PARKED:
                        sick = 0
                    case Fate.LOST:
                        await self._house.ports.clock.sleep(BACKOFF_S[min(self._losses, len(BACKOFF_S)) - 1])
                    case Fate.SICK if sick < self._house.limits.reruns_max:
                        sick += 1
                        await self._house.ports.clock.sleep(min(2.0**sick, 30.0))
                    case _:
                        return fate
        finally:
            for n in list(self.flights.open):
                self.flights.forget(n)
            self._alarm.stop()

    async def _in_its_place(self) -> Fate:
        """One life, when a place for it is free."""
        while True:
            try:
                fate: Fate = await self._house.admit(self.row.principal, self._life)
                return fate
            except Overloaded as error:  # many runs are recovered at once
                await self._house.ports.clock.sleep(error.retry_after_s)

    async def _parked(self) -> Fate | None:
        """No process; flights go on. Until there is something for the program, or its own timer is due."""
        wall_s = self.budget.get("wall_s", math.inf)
        while self._committed <= self._consumed and not (self.cancelling or self.pausing or self._stirred):
            if self._sick is not None:
                return Fate.SICK
            if self._guest_timer is not None and self.t() >= self._guest_timer:
                await self._tick(self._guest_timer)
                continue
            if self.t() >= wall_s:
                return await self._used_up()
            self._wake_at(min(math.inf if self._guest_timer is None else self._guest_timer, wall_s) - self.t())
            self._poked.clear()
            await self._poked.wait()
        return None

    async def _life(self) -> Fate:
        self._sick, self._stirred = None, False
        try:
            begun = await self._begin()
            if begun is None:  # cancelled before it began
                return Fate.ENDED
            start, replay = begun
            try:
                cell = await self._house.launch(self.row, start)
            except KernelError as error:
                return await self._lost(str(error), error.to_wire())
            return await self._attended(_Life(cell, replay, busy_since=self._house.ports.clock.monotonic()))
        except KernelError as error:  # nothing can be recorded, so nothing may go on
            self._sick = error
            return Fate.SICK

    async def _attended(self, life: _Life) -> Fate:
        house, run_id, ended = self._house, self.row.run_id, None
        self._life_now = life
        for call in self._answered.values():  # also what was answered while the process was being made
            life.replay.settled(call)
        self.flights.tell_guest = partial(self._tell, life)
        self._fed.set()
        feeding = house.spawn(self._feed(life), f"{run_id} feed")
        reading = house.spawn(self._read(life), f"{run_id} read")
        try:
            fate = await self._converse(life, reading)
            if fate is Fate.LOST:
                await house.ports.clock.sleep(REAP_S)
                ended = await life.cell.end(kill=True)
                fate = await self._judge(ended)
            return fate
        finally:
            self._life_now = None
            feeding.cancel()
            reading.cancel()
            self._fresh.clear()
            self.flights.guest_gone()
            if ended is None:
                ended = await life.cell.end(kill=True)
            await self._keep_output(ended)

    async def _keep_output(self, ended: Ended) -> None:
        """What the program printed in this life becomes lines of its log; a replay prints nothing again."""
        lines = [(self._lines + 1 + i, line) for i, line in enumerate(_lines(ended))]
        if lines or ended.usage.cpu_s:
            self._lines += len(lines)
            await self._house.store.write(
                lambda tx: self._house.journal.lived_in(tx, self.rid, self.row.principal, lines, ended.usage.cpu_s)
            )

    async def _begin(self) -> tuple[dict[str, Any], r.Replay] | None:
        """START, and the machine that knows the past."""
        house, journal = self._house, self._house.journal

        def unit(tx: Transaction) -> tuple[RunRow, list[Any], int]:
            journal.live_in(tx, self.rid)
            return journal.row(tx, self.rid), journal.past(tx, self.rid), journal.last_line(tx, self.rid)

        self.row, past, last_line = await house.store.write(unit)
        if self.row.ended_at is not None:
            return None
        house.changed(self.row.run_id)
        self._lines = max(self._lines, last_line)
        self._committed = max(self._committed, len(past))
        self.cancelling = bool(self.row.cancelled)
        if past:
            self.clock.at_least(past[-1].t)
        expected = {
            n: r.Expected(f.call.method, f.call.effect, f.call.digest, settled=False)
            for n, f in self.flights.open.items()
        }
        for n, call in self._answered.items():
            expected[n] = r.Expected(call.method, call.effect, call.digest, settled=True)
        steps = []
        for p in past:
            if p.cseq >= 0:
                expected[p.cseq] = r.Expected(p.method, p.effect, p.args_hash, settled=True)
                if p.method == "step":
                    steps.append(p.cseq)
        limits = house.limits
        replay = r.Replay(
            expected=expected,
            answers=[p.cseq for p in past],
            calls_max=limits.guest_calls_max,
            calls_open_max=limits.guest_calls_open_max,
            bytes_open_max=limits.guest_bytes_open_max,
        )
        start = payloads.start(
            run_id=self.row.run_id, program=self.row.program, given=self.row.input, seed=self.row.seed, epoch=self.row.epoch,
            recorded=min(len(past), max(self._consumed, self.row.consumed)), answered_steps=steps, files=self.row.files, limits=limits,
        )  # fmt: skip
        return start, replay

    # --- one life: the conversation

    async def _read(self, life: _Life) -> None:
        """Frames as they come; the next piece is read when the last is handled, so a flood waits in the guest's own buffer."""
        try:
            while found := await life.cell.receive():
                life.heard.extend(found)
                life.handled.clear()
                self._poked.set()
                await life.handled.wait()
        except GuestError as error:
            life.broken = error.message
        except OSError:
            pass
        finally:
            self._poked.set()

    async def _converse(self, life: _Life, reading: "asyncio.Task[None]") -> Fate:
        while True:
            heard, life.heard = life.heard, []
            for frame in heard:
                for action in life.replay.take(frame):
                    fate = await self._act(life, action)
                    if fate is not None:
                        return fate
            life.handled.set()
            if reading.done() and not life.heard:
                return Fate.LOST if life.broken is None else await self._broken(life.broken)
            fate = await self._look(life)
            if fate is not None:
                return fate
            if not life.heard:
                await self._poked.wait()
            self._poked.clear()

    async def _act(self, life: _Life, action: r.Action) -> Fate | None:
        match action:
            case r.Execute(call):
                return await self._execute(life, call)
            case r.Cancel(n):
                await self.flights.drop(n)
            case r.Outcome(n, payload):
                self.flights.outcome(n, payload)
            case r.Note(_, payload):
                with suppress(payloads.Malformed):  # a note of another form is the guest's loss only
                    self.say(payloads.note(payload))
            case r.Idle():
                await self._rest(life, action)
            case r.End(_, payload):
                return await self._finish(life, payload)
            case r.Diverged():
                return await self._diverge(life, action)
            case r.Broken(reason):
                return await self._broken(reason)
        return None

    async def _execute(self, life: _Life, call: r.Made) -> Fate | None:
        if self.pausing or call.n in self.flights.open:
            return None  # paused: it is made again in the next life; in flight: it went on while its guest was away
        over = budgets.exceeded(self.budget, self._with(call))
        if over is not None:
            return await self._fail(
                "budget.exceeded", f"Call {call.n} ({call.method}) passes the run's budget of {over}: {self.budget[over]:g}.",
                detail="budget",
            )  # fmt: skip
        if life.cancel_sent is not None:
            life.calls_since_cancel += 1
            if life.calls_since_cancel > CLEANUP_CALLS_MAX:
                return await self._cut()
        self.flights.begin(call, partial(self._house.serve, self))
        return None

    def _with(self, call: r.Made) -> dict[str, float]:
        usage = self.usage()
        usage["steps"] += 1
        usage["tool_calls"] += call.method in budgets.COUNTED
        return usage

    async def _rest(self, life: _Life, idle: r.Idle) -> None:
        """The guest has nothing to do until a delivery or its next timer."""
        house, now = self._house, self._house.ports.clock.monotonic()
        self._consumed = max(self._consumed, idle.consumed)
        life.idle, life.idle_since = idle, now
        life.busy_since, life.turn_cpu_s = now, None
        if life.notes or life.progress:
            lines, progress = list(life.notes), life.progress
            life.notes.clear()
            life.progress = None

            def unit(tx: Transaction) -> None:
                house.journal.log_in(tx, self.rid, self.row.principal, lines, progress)
                house.journal.change_in(tx, self.rid, consumed=idle.consumed)

            await house.store.write(unit)
            house.changed(self.row.run_id)
        if life.replay.live and not life.reconciled:
            life.reconciled = True
            open_calls = list(self.flights.open)
            await house.store.write(lambda tx: house.journal.withdraw_in(tx, self.rid, waited_for=open_calls))

    async def _look(self, life: _Life) -> Fate | None:
        """What follows from the state as it is now, and when to look again."""
        limits, now = self._house.limits, self._house.ports.clock.monotonic()
        if self._sick is not None:
            return Fate.SICK
        if life.cancel_sent is not None:
            if now - life.cancel_sent >= limits.cancel_grace_s:
                return await self._cut()
            self._wake_at(life.cancel_sent + limits.cancel_grace_s - now)
        if self.pausing and not any(not f.waits for f in self.flights.open.values()):
            return Fate.PAUSED
        left = self.budget.get("wall_s", math.inf) - self.t()
        if left <= 0:
            return await self._used_up()
        self._wake_at(left)
        idle = life.idle
        if idle is None or idle.consumed != life.replay.sent:
            return await self._turn(life, now - life.busy_since)
        if life.replay.sent < self._committed or self._ticking or not life.replay.live:
            return None
        return await self._at_rest(life, idle, now)

    async def _turn(self, life: _Life, busy_s: float) -> Fate | None:
        """The guest is in a turn. It ends when it has used too much CPU, or stood still for far too long."""
        most = self._house.limits.turn_cpu_s_max
        if busy_s < most / 2:
            self._wake_at(most / 2 - busy_s)
            return None
        cpu_s = life.cell.cpu_s()
        if life.turn_cpu_s is None:
            life.turn_cpu_s = cpu_s
        used = cpu_s - life.turn_cpu_s
        if used < most / 2 and busy_s < most * TURN_WALL_FACTOR:
            self._wake_at(most / 4)
            return None
        return await self._fail(
            "guest.turn", f"The program ran for {busy_s:.0f} s without waiting for anything; a turn may use {most:g} s of CPU."
            " Await a call, or do the work in kernel.step or kernel.sandbox.run.", stopped_by="cpu",
        )  # fmt: skip

    async def _at_rest(self, life: _Life, idle: r.Idle, now: float) -> Fate | None:
        """Everything sent is consumed. A due timer, a wait that is long enough to park for, or a wait for nothing at all."""
        house, limits, t = self._house, self._house.limits, self.t()
        if idle.timer is not None and t >= idle.timer:
            if self._committed - self._calls >= limits.guest_ticks_max:
                return await self._fail(
                    "limit.ticks",
                    f"The program was woken by {limits.guest_ticks_max} timers. Wait with kernel.sleep or kernel.receive.",
                )
            self._ticking = True
            house.spawn(self._tick(idle.timer), f"{self.row.run_id} tick")
            return None
        if not self.flights.open and idle.timer is None:
            lost = r.Diverged(life.replay.made - 1, None)
            return await self._diverge(life, lost) if life.replay.made else Fate.LOST
        ends_t = self.budget.get("wall_s", math.inf)
        due_t = min(
            [ends_t, math.inf if idle.timer is None else idle.timer, *(f.due_t for f in self.flights.open.values())]
        )
        if idle.timer is not None:
            self._wake_at(idle.timer - t)
        if (
            any(not flight.waits or flight.recording for flight in self.flights.open.values())
            or due_t - t <= limits.park_after_s
            or life.cancel_sent is not None  # the grace is shorter than any parking
        ):
            return None
        person = any(flight.for_person for flight in self.flights.open.values())
        rested = now - life.idle_since
        if not person and due_t == math.inf and rested < limits.park_after_s and not house.crowded():
            self._wake_at(limits.park_after_s - rested)
            return None
        return await self._park(idle, due_t)

    async def _park(self, idle: r.Idle, due_t: float) -> Fate | None:
        house = self._house
        wake_at = None if due_t == math.inf else self.row.epoch + due_t
        parked = await house.store.write(
            lambda tx: house.journal.park_in(tx, self.rid, deliveries=idle.consumed, wake_at=wake_at)
        )
        if not parked:
            self._wake_at(1.0)  # something stirred it: the flight that it is meant for acts first
            return None
        self._guest_timer = idle.timer
        house.changed(self.row.run_id)
        return Fate.PARKED

    async def _tick(self, due_t: float) -> None:
        t = max(self.t(), due_t)
        try:
            delivery = await self._house.store.write(
                lambda tx: self._house.journal.deliver_in(tx, self.rid, kind="tick", t=t)
            )
            self._guest_timer = None
            self.recorded(delivery, None)
        except KernelError as error:
            self._sickened(error)
        finally:
            self._ticking = False

    def _wake_at(self, delay_s: float) -> None:
        self._alarm.within(delay_s, self._poked.set, f"{self.row.run_id} alarm")

    # --- one life: what is sent

    async def _feed(self, life: _Life) -> None:
        """Deliveries in the order of their numbers, recorded ones read piece by piece; and RUN for steps."""
        while True:
            data = await self._piece(life)
            if not data:
                await self._fed.wait()
                self._fed.clear()
                continue
            try:
                await life.cell.send(data)
            except (OSError, KernelError):
                return  # the reader sees the same end

    def _tell(self, life: _Life, n: int) -> None:
        life.runs.append(n)
        self._fed.set()

    async def _piece(self, life: _Life) -> bytes:
        replay, data = life.replay, bytearray()
        runs, life.runs = life.runs, []
        for n in runs:
            if replay.state(n) is r.CallState.EXECUTING:
                replay.running(n)
                data += frames.encode(frames.RUN, n)
        while replay.sent < self._committed and len(data) < PIECE_BYTES and not self.pausing:
            fresh = self._fresh.pop(replay.sent, None)
            if fresh is not None:
                found = [fresh]
            else:
                start = replay.sent
                found = await self._house.store.read(
                    lambda db, start=start: self._house.journal.deliveries(db, self.rid, start, PIECE_BYTES)  # type: ignore[misc]
                )
            for delivery in found:
                self._fresh.pop(delivery.dseq, None)
                replay.sending(delivery.dseq, delivery.cseq)
                if delivery.kind == "cancel":
                    life.cancel_sent = self._house.ports.clock.monotonic()
                    self._poked.set()
                data += payloads.delivery(delivery.dseq, delivery.kind, delivery.t, delivery.cseq, delivery.value)
            life.busy_since, life.turn_cpu_s = self._house.ports.clock.monotonic(), None
        return bytes(data)

    # --- ends

    async def _finish(self, life: _Life, payload: bytes) -> Fate:
        try:
            large = len(payload) > PARSE_ON_LOOP_BYTES
            ending = await asyncio.to_thread(payloads.ending, payload) if large else payloads.ending(payload)
        except payloads.Malformed as problem:
            return await self._broken(str(problem))
        status = "cancelled" if self.cancelling else "completed" if ending.error is None else "failed"
        error = None if self.cancelling else ending.error
        return await self._end(life, status=status, error=error, output=ending.output, warnings=ending.warnings)

    async def _end(
        self, life: _Life | None, *, status: str, error: Any = None, output: bytes | None = None, warnings: Sequence[str] = (),
        detail: str | None = None,
    ) -> Fate:  # fmt: skip
        house = self._house
        lines = [] if life is None else list(life.notes)
        progress = None if life is None else life.progress

        def unit(tx: Transaction) -> None:
            house.journal.log_in(tx, self.rid, self.row.principal, lines, progress)
            house.journal.end_in(
                tx, self.rid, status=status, detail=detail, output=output, error=error, warnings=warnings
            )

        await house.store.write(unit)
        house.changed(self.row.run_id)
        return Fate.ENDED

    async def _fail(
        self, code: str, message: str, *, detail: str | None = None, stopped_by: str | None = None, fault: str = "guest"
    ) -> Fate:
        error = {"code": code, "message": message, "fault": fault, "retryable": False}
        if stopped_by is not None:
            error["stopped_by"] = stopped_by
        return await self._end(self._life_now, status="failed", error=error, detail=detail)

    async def _used_up(self) -> Fate:
        text = f"The run's budget of wall_s is used up: {self.budget['wall_s']:g}."
        return await self._fail("budget.exceeded", text, detail="budget")

    async def _broken(self, reason: str) -> Fate:
        return await self._fail(
            "guest.protocol", f"The program broke the rules of its channel: {reason.rstrip('.')}. It was ended."
        )

    async def _cut(self) -> Fate:
        """The grace after a cancel is over."""
        return await self._end(self._life_now, status="cancelled", detail="cleanup_cut")

    async def _judge(self, ended: Ended) -> Fate:
        """The guest is gone without END."""
        if self.cancelling and self._life_now is not None and self._life_now.cancel_sent is not None:
            return await self._cut()
        if ended.stopped_by in ("cpu", "timeout", "output", "disk", "files", "processes"):
            return await self._fail(
                "guest.stopped",
                f"The program was stopped by its limit: {ended.stopped_by}.",
                stopped_by=ended.stopped_by,
            )
        if ended.signal is None and ended.exit_code is not None and ended.stopped_by is None:
            return await self._fail(
                "guest.exit",
                f"The program's process left by itself with exit status {ended.exit_code}, without a result.",
            )
        by = f", stopped by its limit: {ended.stopped_by}" if ended.stopped_by else ""
        text = f"The program's process was killed (signal {ended.signal}{by})."
        return await self._lost(text, {"code": "guest.killed", "fault": "guest", "stopped_by": ended.stopped_by})

    async def _lost(self, text: str, error: Mapping[str, Any]) -> Fate:
        """Run it again, unless it was lost too often."""
        house, limits = self._house, self._house.limits
        self._losses = self._losses + 1 if self._committed == self._lost_at else 1
        self._lost_at = self._committed

        def unit(tx: Transaction) -> int:
            house.journal.event_in(tx, self.rid, "lost", text)
            return house.journal.rerun_in(tx, self.rid)

        reruns = await house.store.write(unit)
        if self._losses <= limits.reruns_without_progress_max and reruns <= limits.reruns_max:
            return Fate.LOST
        message = f"{text} It was run again {reruns - 1} times; {self._losses - 1} times without getting further."
        problem = {name: value for name, value in error.items() if value is not None} | {
            "message": message,
            "retryable": False,
        }
        return await self._end(self._life_now, status="failed", error=problem)

    async def _diverge(self, life: _Life, diverged: r.Diverged) -> Fate:
        house, journal = self._house, self._house.journal
        for n in list(self.flights.open):
            self.flights.forget(n)

        def unit(tx: Transaction) -> None:
            recorded = journal.recorded_call(tx, self.rid, diverged.n) or ("a call in flight", "", None)
            text = r.divergence_text(
                diverged=diverged, recorded=recorded, answered=life.replay.answered_before(diverged.n),
                runtime_changed=self.row.runtime != house.runtime or self.row.path_version != r.PATH_VERSION,
            )  # fmt: skip
            call = diverged.found or r.Made(diverged.n, recorded[0], "at_least_once", recorded[1], b"", b"")
            journal.item_in(tx, self.row, call, kind="resolve", prompt=text, reason="diverged")
            journal.event_in(tx, self.rid, "diverged", text)

        await house.store.write(unit)
        house.changed(self.row.run_id)
        return Fate.DIVERGED


def _lines(ended: Ended) -> list[str]:
    text = "\n".join(text for part in (ended.stdout, ended.stderr) if (text := part.text().rstrip("\n")))
    return text.splitlines()[-OUTPUT_LINES_KEPT:]
