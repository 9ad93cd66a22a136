"""What the payloads of a program's frames say: START, DELIVER, RESULT, NOTE, END. Pure; both directions, one place.

A guest may send anything. Each reader here gives a value of the form it promises or raises Malformed with the reason.

Not here: order and numbers of frames (replay.py), their binary heads (cell/frames.py), the other end (cell/turns.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..cell import frames
from .errors import KernelError
from .limits import Limits
from .shown import dumps, loads, received

__all__ = ["Ending", "Malformed", "delivery", "ending", "note", "ranges", "start", "step_outcome"]

WARNINGS_MAX = 50
LINE_CHARS_MAX = 2000
EXACT_MAX = 2**53


class Malformed(Exception):
    """Not of the form that it must be."""


class Ending(NamedTuple):
    """What END says: an output as JSON or an error, and the lines the program's author should look at."""

    output: bytes | None
    error: Mapping[str, Any] | None
    warnings: Sequence[str]


def start(
    *, run_id: str, program: str, given: bytes, seed: bytes, epoch: float, recorded: int, answered_steps: Sequence[int],
    files: bytes | None, limits: Limits,
) -> dict[str, Any]:  # fmt: skip
    return {
        "v": 1, "mode": "program", "run_id": run_id, "program": program, "input": loads(given), "seed": seed.hex(), "epoch": epoch,
        "recorded": recorded, "answered_steps": ranges(answered_steps), "files": {} if files is None else loads(files),
        "limits": {
            "cancel_grace_s": limits.cancel_grace_s, "calls_max": limits.guest_calls_max,
            "calls_open_max": limits.guest_calls_open_max, "value_bytes_max": limits.value_bytes_max,
        },
    }  # fmt: skip


def delivery(number: int, kind: str, t: float, call: int, value: bytes) -> bytes:
    head = frames.DELIVER_HEAD.pack(frames.KINDS.index(kind), t, max(call, 0))
    return frames.encode(frames.DELIVER, number, head + value)


def step_outcome(payload: bytes) -> tuple[str, bytes]:
    """(kind, value) of a step's answer."""
    try:
        outcome = received(payload)
        if "error" in outcome:
            return "error", dumps(KernelError.from_wire(outcome["error"]).to_wire())
        return "ok", dumps({"value": outcome["ok"], "files": dict(outcome.get("files") or {})})
    except _WRONG as error:
        raise Malformed(f"a step's outcome: {error}") from None


def ending(payload: bytes) -> Ending:
    try:
        outcome = received(payload)
        error = outcome.get("error")
        if error is not None:
            error = {str(name): value for name, value in error.items()} | {"code": str(error["code"])}
        warnings = [str(line)[:500] for line in outcome.get("warnings", [])][:WARNINGS_MAX]
        return Ending(dumps(outcome["output"]) if error is None else None, error, warnings)
    except _WRONG as problem:
        raise Malformed(f"END: {problem}") from None


def note(payload: bytes) -> dict[str, Any]:
    """{"log": text} or {"progress": {done, total, message}}."""
    try:
        found = received(payload)
        if isinstance(found.get("log"), str):
            return {"log": found["log"][:LINE_CHARS_MAX]}
        done, total, message = found["progress"]
        if not all(one is None or _countable(one) for one in (done, total)):
            raise Malformed("progress that is no number")
        return {"progress": {"done": done, "total": total, "message": str(message or "")[:500]}}
    except _WRONG as problem:
        raise Malformed(f"NOTE: {problem}") from None


def _countable(value: Any) -> bool:
    """A number that every reader of JSON takes for the same one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= EXACT_MAX


def ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Numbers as ascending inclusive ranges."""
    found: list[list[int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return found


_WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
