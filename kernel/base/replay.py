"""What a guest program may say and when, and what follows from it: the replay of a run, pure. Frames in, decisions out; no I/O.

A run's history is a dense sequence of deliveries. A program that is started again is given the recorded ones in their order; it makes
its calls anew, and each is compared with what the journal has. Only when every recorded delivery is consumed and the program has
nothing left to do are calls executed that have no recorded answer: until then they are held back, because a call that the first life
dropped (the loser of a race) left no record and must not be executed by a replay.

States of a call; an event that has no line here ends the guest
    (none)    --call-->  HELD | EXECUTING | SETTLED     before the live point; after it; the journal has its answer
    HELD      --live-->  EXECUTING    --drop--> DROPPED    --settle--> SETTLED
    EXECUTING --run-->   RUNNING      --drop--> DROPPED    --settle--> SETTLED
    RUNNING   --result-> RETURNED     --drop--> DROPPED    --settle--> SETTLED
    RETURNED  --drop-->  DROPPED      --settle--> SETTLED
    SETTLED   --drop-->  DROPPED      --settle--> SETTLED
    DROPPED   --result-> DROPPED      --settle--> DROPPED

Guarantees
1. No call is executed while recorded deliveries remain, and none whose answer is recorded.
2. A call that differs from the recorded one in method, effect or arguments is a divergence; a label (path) that differs is not. So is a
   recorded answer whose call the program, idle or at its end, has not made.
3. Numbers of calls are dense from 0, numbers of consumed deliveries never fall nor pass what was sent, an outcome comes only for a step
   that was told to run, nothing follows END. Anything else is `Broken`, and the guest's end.
4. Payloads are opaque here: hashed and handed on. They are parsed only to show the first difference of a divergence.

Not here: who executes (programs.py), where the history is kept (journal.py), the other end (cell/turns.py).
If the process dies: nothing is kept here; the next life begins from the journal.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from ..cell import frames

__all__ = [
    "PATH_VERSION",
    "Action",
    "Broken",
    "CallState",
    "Cancel",
    "Diverged",
    "End",
    "Execute",
    "Expected",
    "Idle",
    "Made",
    "Note",
    "Outcome",
    "Replay",
    "difference",
    "digest_of",
    "divergence_text",
    "shown",
]  # fmt: skip

PATH_VERSION = 1
"""How the guest computes labels; kept in the run's row."""
PATH_CHARS_MAX = 256
NO_CALL = -1
"""In a list of recorded deliveries: one that answers no call (a tick, a cancel)."""


class CallState(Enum):
    HELD = "held"
    EXECUTING = "executing"
    RUNNING = "running"
    RETURNED = "returned"
    SETTLED = "settled"
    DROPPED = "dropped"


TRANSITIONS: Mapping[tuple[CallState, str], CallState] = {
    (CallState.HELD, "live"): CallState.EXECUTING,
    (CallState.HELD, "drop"): CallState.DROPPED,
    (CallState.HELD, "settle"): CallState.SETTLED,
    (CallState.EXECUTING, "run"): CallState.RUNNING,
    (CallState.EXECUTING, "drop"): CallState.DROPPED,
    (CallState.EXECUTING, "settle"): CallState.SETTLED,
    (CallState.RUNNING, "result"): CallState.RETURNED,
    (CallState.RUNNING, "drop"): CallState.DROPPED,
    (CallState.RUNNING, "settle"): CallState.SETTLED,
    (CallState.RETURNED, "drop"): CallState.DROPPED,
    (CallState.RETURNED, "settle"): CallState.SETTLED,
    (CallState.SETTLED, "drop"): CallState.DROPPED,
    (CallState.SETTLED, "settle"): CallState.SETTLED,
    (CallState.DROPPED, "result"): CallState.DROPPED,
    (CallState.DROPPED, "settle"): CallState.DROPPED,
}

OPEN = {CallState.HELD, CallState.EXECUTING, CallState.RUNNING, CallState.RETURNED}


class Made(NamedTuple):
    """A call as the guest made it."""

    n: int
    method: str
    effect: str
    path: str
    arguments: bytes
    digest: bytes


class Expected(NamedTuple):
    """What is known of a call from before: from the journal, or because it is still being executed for an earlier life."""

    method: str
    effect: str
    digest: bytes
    settled: bool


class Execute(NamedTuple):
    call: Made


class Cancel(NamedTuple):
    """Nobody waits for the call any more."""

    n: int


class Outcome(NamedTuple):
    """What the function of a step returned or raised, as JSON."""

    n: int
    payload: bytes


class Idle(NamedTuple):
    consumed: int
    timer: float | None


class Note(NamedTuple):
    number: int
    payload: bytes


class End(NamedTuple):
    consumed: int
    payload: bytes


class Diverged(NamedTuple):
    """The call `n` is not what was recorded; `found` is None when the program did not make it at all."""

    n: int
    found: Made | None


class Broken(NamedTuple):
    """The guest broke the protocol."""

    reason: str


Action: TypeAlias = Execute | Cancel | Outcome | Idle | Note | End | Diverged | Broken


class _Refused(Exception):
    """Unwinds to `take`, which makes it Broken."""


class Replay:
    """One life of a guest. `answers[d]` is the call that the recorded delivery d answers, or NO_CALL."""

    def __init__(
        self, *, expected: Mapping[int, Expected], answers: Sequence[int], calls_max: int, calls_open_max: int,
        bytes_open_max: int,
    ) -> None:  # fmt: skip
        self._expected = dict(expected)
        self._answers = list(answers)
        self._recorded = len(self._answers)
        self._calls_max = calls_max
        self._calls_open_max = calls_open_max
        self._bytes_open_max = bytes_open_max
        self._calls: dict[int, CallState] = {}
        self._held: dict[int, Made] = {}
        self._open = 0
        self._sizes: dict[int, int] = {}
        """Of open calls: what their arguments and outcomes hold of our memory."""
        self.made = 0
        """Calls made so far, which is the next call's ordinal."""
        self.sent = 0
        """Deliveries sent to the guest."""
        self.consumed = 0
        self.live = self._recorded == 0
        self.over = False

    # --- what the host does

    def sending(self, number: int, answers: int) -> None:
        """The delivery `number` goes out; `answers` is its call's ordinal or NO_CALL."""
        assert number == self.sent, f"delivery {number} out of order, {self.sent} is next"
        if number == len(self._answers):
            self._answers.append(answers)
        assert self._answers[number] == answers
        self.sent += 1

    def running(self, n: int) -> None:
        """The step `n` is told to run its function."""
        self._move(n, "run")

    def settled(self, call: Made) -> None:
        """The call's answer was committed just now."""
        n = call.n
        self._expected[n] = Expected(call.method, call.effect, call.digest, settled=True)
        self._held.pop(n, None)
        if n in self._calls:
            self._move(n, "settle")

    def answered_before(self, n: int) -> int:
        """How many calls before call `n` have a recorded answer."""
        return sum(m < n and known.settled for m, known in self._expected.items())

    def state(self, n: int) -> CallState | None:
        return self._calls.get(n)

    # --- what the guest says

    def take(self, frame: frames.Frame) -> list[Action]:
        if self.over:
            return [Broken("a frame after END")]
        reader = _READERS.get(frame.type)
        if reader is None:
            return [Broken(f"a frame of the unknown type {frame.type}")]
        try:
            return reader(self, frame)
        except _Refused as refused:
            return [Broken(str(refused))]

    def _call(self, frame: frames.Frame) -> list[Action]:
        call = _parsed(frame)
        if call.n != self.made:
            raise _Refused(f"call {call.n}, the next one is {self.made}")
        if call.n >= self._calls_max:
            raise _Refused(f"more than {self._calls_max} calls")
        self.made += 1
        known = self._expected.get(call.n)
        if known is not None and (known.method, known.effect, known.digest) != (call.method, call.effect, call.digest):
            return [Diverged(call.n, call)]
        if known is not None and known.settled:
            self._calls[call.n] = CallState.SETTLED
            return []
        self._open += 1
        if self._open > self._calls_open_max:
            raise _Refused(f"more than {self._calls_open_max} calls open at once")
        self._hold(call.n, len(call.arguments))
        if self.live:
            self._calls[call.n] = CallState.EXECUTING
            return [Execute(call)]
        self._calls[call.n] = CallState.HELD
        self._held[call.n] = call
        return []

    def _drop(self, frame: frames.Frame) -> list[Action]:
        before = self._calls.get(frame.number)
        if frame.payload:
            raise _Refused("DROP has a payload")
        self._move(frame.number, "drop")
        if before is CallState.HELD:
            del self._held[frame.number]
        if before in OPEN and before is not CallState.HELD:
            return [Cancel(frame.number)]
        return []

    def _idle(self, frame: frames.Frame) -> list[Action]:
        if len(frame.payload) != frames.IDLE_BODY.size:
            raise _Refused("IDLE has no timer field")
        (timer,) = frames.IDLE_BODY.unpack(frame.payload)
        if math.isinf(timer) or timer < 0:
            raise _Refused(f"a timer at {timer}")
        missing = self._consume(frame.number, waiting=True)
        if missing is not None:
            return [Diverged(missing, None)]
        actions: list[Action] = []
        if not self.live and self.consumed >= self._recorded:
            self.live = True
            for n in list(self._held):
                self._move(n, "live")
                actions.append(Execute(self._held.pop(n)))
        actions.append(Idle(self.consumed, None if math.isnan(timer) else timer))
        return actions

    def _result(self, frame: frames.Frame) -> list[Action]:
        before = self._calls.get(frame.number)
        self._move(frame.number, "result")
        if before is not CallState.DROPPED:
            self._hold(frame.number, len(frame.payload))
        return [] if before is CallState.DROPPED else [Outcome(frame.number, frame.payload)]

    def _note(self, frame: frames.Frame) -> list[Action]:
        return [Note(frame.number, frame.payload)]

    def _end(self, frame: frames.Frame) -> list[Action]:
        missing = self._consume(frame.number, waiting=False)
        if missing is not None:
            return [Diverged(missing, None)]
        self.over = True
        return [End(self.consumed, frame.payload)]

    def _consume(self, number: int, *, waiting: bool) -> int | None:
        """Note that `number` deliveries are consumed; the first recorded call that the guest should have made by now and has not.

        A program that waits must have made every call whose answer comes next. One that ends may leave answers unconsumed, but only
        to calls that it has made.
        """
        if number < self.consumed or number > self.sent:
            raise _Refused(f"{number} deliveries consumed, {self.consumed} were before and {self.sent} are sent")
        until = min(number + 1, self._recorded) if waiting else self._recorded
        missing = next((n for n in self._answers[self.consumed : until] if n >= self.made), None)
        self.consumed = number
        return missing

    def _hold(self, n: int, size: int) -> None:
        self._sizes[n] = self._sizes.get(n, 0) + size
        if sum(self._sizes.values()) > self._bytes_open_max:
            raise _Refused(f"more than {self._bytes_open_max} bytes in calls open at once")

    def _move(self, n: int, event: str) -> None:
        before = self._calls.get(n)
        after = None if before is None else TRANSITIONS.get((before, event))
        if after is None:
            raise _Refused(f"{event} of call {n}, which is {before.value if before else 'not made'}")
        if before in OPEN and after not in OPEN:
            self._open -= 1
            self._sizes.pop(n, None)
        self._calls[n] = after


_READERS = {
    frames.CALL: Replay._call,  # noqa: SLF001
    frames.DROP: Replay._drop,  # noqa: SLF001
    frames.IDLE: Replay._idle,  # noqa: SLF001
    frames.RESULT: Replay._result,  # noqa: SLF001
    frames.NOTE: Replay._note,  # noqa: SLF001
    frames.END: Replay._end,  # noqa: SLF001
}


def _parsed(frame: frames.Frame) -> Made:
    payload = frame.payload
    if len(payload) < frames.CALL_HEAD.size:
        raise _Refused("CALL without its head")
    method, effect, path_bytes = frames.CALL_HEAD.unpack_from(payload)
    begin = frames.CALL_HEAD.size + path_bytes
    if method >= len(frames.METHODS) or effect >= len(frames.EFFECTS) or begin > len(payload):
        raise _Refused(f"CALL with method {method}, effect {effect} and a path of {path_bytes} bytes")
    path = payload[frames.CALL_HEAD.size : begin].decode("utf8", "replace")[:PATH_CHARS_MAX]
    arguments = payload[begin:]
    return Made(frame.number, frames.METHODS[method], frames.EFFECTS[effect], path, arguments, digest_of(arguments))


def digest_of(arguments: bytes) -> bytes:
    """The guest writes arguments with sorted keys, so equal arguments are equal bytes."""
    return hashlib.blake2b(arguments, digest_size=16).digest()


# --- saying what differs


def divergence_text(
    *, diverged: Diverged, recorded: tuple[str, str, bytes | None], answered: int, runtime_changed: bool
) -> str:
    """The report of a divergence. `recorded` is (method, path, arguments or None when they were too long to be kept)."""
    method, path, arguments = recorded
    found = diverged.found
    where = f"Replay differs at call {diverged.n} ({path}), after {answered} recorded answers."
    was = f"Recorded: {method} {shown(arguments)}."
    if found is None:
        now, first = "Now: the program does not make this call.", ""
    else:
        now = f"Now: {found.method} {shown(found.arguments)}."
        first = (
            f" First difference: {'the method' if found.method != method else difference(arguments, found.arguments)}."
        )
    cause = (
        "the runtime has changed since the run began"
        if runtime_changed
        else "wall clock or randomness read in C code, files outside the workspace, or object addresses"
    )
    return f"{where} {was} {now}{first} Likely cause: {cause}. Next: approve this item to replay once more, deny it to end the run."


def difference(recorded: bytes | None, found: bytes) -> str:
    """The first argument that differs: `argument "v": 1, now 2`."""
    if recorded is None:
        return "an argument (the recorded ones were too long to be kept)"
    try:
        return (
            _differs(json.loads(recorded), json.loads(found), "") or "none in the values, only in how they are written"
        )
    except (ValueError, RecursionError):
        return "an argument (not JSON)"


def _differs(old: Any, new: Any, at: str) -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{at}.{key}" if at else str(key)
            if key not in new:
                return f'argument "{place}" is gone, was {_short(old[key])}'
            if key not in old:
                return f'argument "{place}" is new, {_short(new[key])}'
            found = _differs(old[key], new[key], place)
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        for i, (a, b) in enumerate(zip(old, new, strict=False)):
            found = _differs(a, b, f"{at}[{i}]")
            if found:
                return found
        return None if len(old) == len(new) else f'argument "{at}" has {len(new)} entries, had {len(old)}'
    same = type(old) is type(new) and old == new
    return None if same else f'argument "{at}": {_short(old)}, now {_short(new)}'


def _short(value: Any) -> str:
    return _cut(json.dumps(value))


def shown(arguments: bytes | None) -> str:
    return "(arguments over 4 KiB)" if arguments is None else _cut(arguments.decode("utf8", "replace"), 400)


def _cut(text: str, chars: int = 120) -> str:
    return text if len(text) <= chars else text[: chars - 3] + "..."
