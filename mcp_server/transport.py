"""MCP on a pair of descriptors: JSON lines in, JSON lines out, on the event loop's own readiness.

The SDK keeps the protocol; this file replaces its stdio transport, whose worker threads cost more than half of a call. Lines become
the SDK's messages here, and here is where bad bytes end.

Guarantees
1. A line that is not strict JSON (NaN, duplicate keys, lone surrogates, deeper or longer than the limits) never reaches a tool. Its
   request is answered all the same: such a message goes on with empty arguments and the refusal beside it (`Refused`).
2. Memory is bounded: a line past the limit is dropped while it arrives; while more than `OUTPUT_BYTES_MAX` wait for a client that
   does not read, nothing more is read from it; requests past `REQUESTS_OPEN_MAX` are refused as overloaded.
3. End of input: requests already read are answered, for at most `GRACE_S` (but not streams of changes, which have no end of their
   own); then the reading side ends. Output that nobody reads any more counts as end of input; so does whatever else calls `Wire.ended`.

Format: one JSON-RPC 2.0 object a line, UTF-8, no byte order mark.

Not here: which descriptors (stdio.py), eras, versions, handlers (the SDK), tools (tools.py), the control socket (control.py). If the process dies between two
lines of code, replies not yet written are lost and nothing else: everything durable is the kernel's.
"""

import asyncio
import contextlib
import json
import math
import os
import re
import stat
import threading
from collections import deque
from types import TracebackType
from typing import Any, Self

import anyio
import orjson
from agent_kernel.base import system
from agent_kernel.base.errors import ArgumentError, KernelError, LimitExceeded, Overloaded
from agent_kernel.base.limits import Limits
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter
from pydantic import ValidationError

from .hello import take_number
from .numbers import Numbers, Origin

__all__ = ["Refused", "Wire", "message_of", "strict"]

OUTPUT_BYTES_MAX = 4 << 20
REQUESTS_OPEN_MAX = 1024
GRACE_S = 2.0
ENVELOPE_BYTES = 64 << 10
"""What a message may hold beside its arguments."""
READ_BYTES = 256 << 10
SHALLOW_BYTES = 1 << 20
"""The longest line that is cut to its shallow part to find out what it asked; the cut goes token by token."""
INVALID_REQUEST, PARSE_ERROR = -32600, -32700


class Refused:
    """A line that cannot become a message: what to answer, and to which request (None: unknown)."""

    def __init__(self, request_id: str | int | None, code: int, error: KernelError) -> None:
        answer = {"code": code, "message": str(error), "data": error.to_wire()}
        self.line = _dumped({"jsonrpc": "2.0", "id": request_id, "error": answer})


# --- a line becomes a message


def message_of(line: bytes, limits: Limits, origin: Origin | None = None) -> SessionMessage | Refused:
    """The message in `line`, its origin as request context; one with empty arguments and the refusal there where only those are bad."""
    refusal: KernelError | None = None
    value: Any
    try:
        value = strict(line, limits)
    except KernelError as error:
        refusal = error
        try:
            value = _lenient(line, limits.argument_depth_max)
        except ValueError:
            request_id = _id_of_giant(line[:1024], line[-1024:])
            return Refused(request_id, PARSE_ERROR if request_id is None else INVALID_REQUEST, error)
    if not isinstance(value, dict):
        problem = ArgumentError("argument.invalid_json", "A message is one JSON object a line; batches are not served.")
        return Refused(None, INVALID_REQUEST, problem)
    if "method" in value and type(value.get("id", 0)) not in (int, str):
        problem = ArgumentError("argument.invalid_json", "The id of a request is a string or an integer.")
        return Refused(None, INVALID_REQUEST, problem)
    params = value.get("params")
    if value.get("method") == "tools/call" and isinstance(params, dict):
        refusal = _mend_arguments(params, refusal, limits)
    try:
        message = jsonrpc_message_adapter.validate_python(value, by_name=False)
    except ValidationError:
        problem = refusal or ArgumentError(
            "argument.invalid_json", "The line is no JSON-RPC 2.0 message. Send one of its four kinds."
        )
        request_id = value.get("id")
        return Refused(request_id if type(request_id) in (int, str) else None, INVALID_REQUEST, problem)
    return SessionMessage(message, ServerMessageMetadata(request_context=refusal or origin))


def _mend_arguments(params: dict[str, Any], refusal: KernelError | None, limits: Limits) -> KernelError | None:
    """Arguments that the tool may see are an object; some hosts send it as a string."""
    arguments = params.get("arguments")
    if refusal is None and isinstance(arguments, str):
        with contextlib.suppress(ValueError, KernelError):
            arguments = params["arguments"] = strict(arguments.encode(), limits)
    if refusal is None and arguments is not None and not isinstance(arguments, dict):
        refusal = ArgumentError("argument.wrong_type", "The arguments of a tool are one JSON object, by name.")
    if refusal is not None:
        params["arguments"] = {}
    return refusal


def strict(line: bytes, limits: Limits) -> Any:
    if len(line) > limits.argument_bytes_max + ENVELOPE_BYTES:
        raise LimitExceeded(
            "argument.too_large",
            f"The call has {len(line)} bytes, the limit is {limits.argument_bytes_max}."
            " Put the data into a file of a shared folder, or send it in parts.",
        )
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ArgumentError("argument.invalid_json", f"Byte {error.start} of the line is not UTF-8.") from None
    except UnicodeEncodeError:
        raise ArgumentError(
            "argument.invalid_json", "A string holds a lone surrogate, which is no character. Send valid Unicode."
        ) from None
    except RecursionError:
        raise _too_deep(limits) from None
    except ValueError as error:
        raise ArgumentError("argument.invalid_json", f"This is not JSON: {error}. Nothing was done.") from None
    if _deeper_than(value, limits.argument_depth_max + 2):  # the message and its params are outside
        raise _too_deep(limits)
    return value


def _too_deep(limits: Limits) -> KernelError:
    return LimitExceeded(
        "argument.too_deep",
        f"The arguments nest deeper than {limits.argument_depth_max}. Flatten them, or send them as text.",
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ArgumentError(
            "argument.duplicate_key", f"The key {twice[:80]!r} occurs twice in one object. Send it once."
        )
    return made


def _no_constant(name: str) -> Any:
    raise ArgumentError("argument.invalid_json", f"{name} is not JSON. Send a finite number, null or a string.")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_constant(digits[:40])


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    while level:
        if depth == 0:
            return True
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        depth -= 1
    return False


_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)


def _lenient(line: bytes, depth_max: int) -> Any:
    """What can be read of a refused line, without its arguments: everything deeper than the limit is null, numbers may be anything."""
    text = line.decode(errors="replace")
    try:
        value = json.loads(text, parse_int=_any_int)
    except RecursionError:
        if len(line) > SHALLOW_BYTES:
            raise ValueError("too long to be cut") from None
        value = json.loads(_without_depths(line, depth_max + 4).decode(errors="replace"), parse_int=_any_int)
    if isinstance(value, dict):
        if isinstance(value.get("params"), dict):
            value["params"].pop("arguments", None)
        # Lone surrogates and NaN may sit in the rest too, and the SDK must not stumble over them.
        value = orjson.loads(json.dumps(value).replace("\\ud", "\\u0d").replace("NaN", "0").replace("Infinity", "0"))
    return value


def _without_depths(line: bytes, first: int) -> bytes:
    kept, depth, done = [], 0, 0
    for match in _TOKEN.finditer(line):
        mark = line[match.start()]
        if mark in b"[{":
            depth += 1
            if depth == first:
                kept += [line[done : match.start()], b"null"]
        elif mark in b"]}":
            if depth == first:
                done = match.end()
            depth -= 1
    if depth:
        raise ValueError("unclosed")
    return b"".join([*kept, line[done:]])


def _any_int(digits: str) -> int:
    return int(digits) if len(digits) < 20 else 0


_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.){0,128}"|-?\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?}\s*$')
_ID_FIRST = re.compile(
    rb'^\s*{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:"method"\s*:\s*"[^"\\]{0,128}"\s*,\s*)?"id"\s*:\s*("(?:[^"\\]|\\.){0,128}"|-?\d{1,18})'
)


def _id_of_giant(head: bytes, tail: bytes) -> str | int | None:
    """The request id of a line too long to keep: clients put it first or last."""
    found = _ID_FIRST.search(head) or _ID.search(tail)
    request_id: str | int | None = orjson.loads(found[1]) if found else None
    return request_id


# --- the two directions


class Wire:
    """Both streams of one connection: `wire.incoming` and `wire.outgoing` are what the SDK's `Server.run` takes."""

    def __init__(self, source: int, sink: int, limits: Limits, numbers: Numbers | None = None) -> None:
        """`numbers`: the lines are a bridge's (numbers.py)."""
        self.limits, self.numbers = limits, numbers
        self.loop = asyncio.get_running_loop()
        self.open_requests: set[str | int] = set()
        self.outgoing = Outgoing(self, sink)
        self.incoming = Incoming(self, source)

    def ended(self) -> None:
        """No more input will come, or none is wanted: finish what was asked, then end."""
        self.incoming.end()

    def answered(self, request_id: Any) -> None:
        if type(request_id) in (str, int):
            self.open_requests.discard(request_id)
            if self.numbers is not None and (line := self.numbers.closed(request_id)) is not None:
                self.outgoing.put(line)
        if not self.open_requests:
            self.incoming.wake()

    async def close(self) -> None:
        """Write what is buffered if somebody reads it soon, and give the descriptors back as they were."""
        await self.outgoing.flush()
        self.incoming.close()
        self.outgoing.close()


class Incoming:
    def __init__(self, wire: Wire, fd: int) -> None:
        self._wire = wire
        self._fd = fd
        self._buffer = bytearray()
        self._skipped = 0  # bytes of a giant line that were dropped
        self._giant_head = b""
        self._messages: deque[SessionMessage] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._ended_at = 0.0
        self._reading = False
        self._polled = _is_polled(fd)
        self._wanted = threading.Event()
        if self._polled:
            self._resume()
        else:  # a file or a terminal has no readiness; a thread that nobody waits for reads it
            threading.Thread(target=self._read_forever, name="stdin", daemon=True).start()
            self._wanted.set()

    # What the SDK calls

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self) -> SessionMessage | Exception:
        while True:
            await self._wire.outgoing.has_room()
            if self._messages:
                message = self._messages.popleft()
                if not self._messages:
                    self._resume()
                return message
            if self._ended and self._may_leave():
                raise anyio.EndOfStream
            self._changed.clear()
            await self._changed.wait()

    async def aclose(self) -> None:
        self._pause()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        await self.aclose()
        return None

    # What the wire calls

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._pause()
        self._ended_at = self._wire.loop.time()
        self._wire.loop.call_later(GRACE_S, self._late)
        self.wake()

    def _late(self) -> None:
        self._wire.outgoing.give_up_when_full()
        self.wake()

    def room_again(self) -> None:
        if not self._messages:
            self._resume()

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        self._pause()
        self._ended = True
        if self._polled:
            os.close(self._fd)

    def _may_leave(self) -> bool:
        late = self._wire.loop.time() >= self._ended_at + GRACE_S - 0.001
        return not self._wire.open_requests or self._wire.outgoing.broken or late

    def _resume(self) -> None:
        if self._ended or self._reading:
            return
        if self._polled:
            self._wire.loop.add_reader(self._fd, self._readable)
            self._reading = True
        else:
            self._wanted.set()

    def _pause(self) -> None:
        if self._reading:
            self._wire.loop.remove_reader(self._fd)
            self._reading = False

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._feed(data)

    def _read_forever(self) -> None:
        data = b"-"
        while data:
            self._wanted.wait()
            self._wanted.clear()
            try:
                data = os.read(self._fd, READ_BYTES)
            except OSError:
                data = b""
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants it any more
                self._wire.loop.call_soon_threadsafe(self._feed, data)

    def _feed(self, data: bytes) -> None:
        if self._ended:
            return
        if not data:
            if self._buffer.strip() and not self._skipped:
                self._line(bytes(self._buffer))  # a last line without its newline
            self.end()
            return
        start = 0
        while (newline := data.find(b"\n", start)) >= 0:
            self._keep(data[start:newline])
            self._finish_line()
            start = newline + 1
        self._keep(data[start:])
        if self._messages or not self._wire.outgoing.roomy:
            self._pause()
            self.wake()
        elif not self._polled:
            self._wanted.set()

    def _keep(self, part: bytes) -> None:
        self._buffer += part
        cap = 2 * self._wire.limits.argument_bytes_max + ENVELOPE_BYTES
        if len(self._buffer) > cap:
            if not self._skipped:
                self._giant_head = bytes(self._buffer[:1024])
            self._skipped += len(self._buffer) - 1024
            del self._buffer[:-1024]

    def _finish_line(self) -> None:
        line = bytes(self._buffer)
        self._buffer.clear()
        if not self._skipped:
            if line.strip():
                self._line(line)
            return
        size, self._skipped = self._skipped + len(line), 0
        self._refuse_giant(size, self._giant_head, line)

    def _refuse_giant(self, size: int, head: bytes, tail: bytes, number: bytes = b"") -> None:
        error = LimitExceeded(
            "argument.too_large",
            f"The line has {size} bytes, the limit is {self._wire.limits.argument_bytes_max}."
            " Put the data into a file of a shared folder, or send it in parts.",
        )
        self._wire.outgoing.put(number + Refused(_id_of_giant(head, tail), INVALID_REQUEST, error).line)

    def _line(self, line: bytes) -> None:
        if self._wire.numbers is None:
            self._message(line, b"", None)
            return
        try:
            number, mark, line = take_number(line)
        except ValueError:  # no bridge of ours: nothing can be said to it
            self.end()
            return
        if mark.startswith(b"~"):
            self._refuse_giant(int(mark[1:]), line[:1024], line[-1024:], b"%d " % number)
        else:
            self._message(line, b"%d " % number, Origin(self._wire.numbers.bridge, number, mark == b"+"))

    def _message(self, line: bytes, prefix: bytes, origin: Origin | None) -> None:
        """`prefix` stands before whatever answers the line."""
        message = message_of(line, self._wire.limits, origin)
        if isinstance(message, Refused):
            self._wire.outgoing.put(prefix + message.line)
            return
        request, numbers = message.message, self._wire.numbers
        if isinstance(request, JSONRPCRequest):
            if len(self._wire.open_requests) >= REQUESTS_OPEN_MAX:
                busy = Overloaded(
                    f"{REQUESTS_OPEN_MAX} requests of this connection are open. Wait for some of them.",
                    retry_after_s=1.0,
                )
                self._wire.outgoing.put(prefix + Refused(request.id, INVALID_REQUEST, busy).line)
                return
            if request.method != "subscriptions/listen":
                self._wire.open_requests.add(request.id)
            if numbers is not None and origin is not None:
                earlier = numbers.opened(request.id, origin.number, request.method)
                if earlier is not None:
                    self._wire.outgoing.put(earlier)
        else:
            method = getattr(request, "method", None)
            if numbers is not None and origin is not None:
                self._wire.outgoing.put(numbers.heard(origin.number, method))
                if method is None:
                    request.id = numbers.answered(request.id)
                    if request.id is None:  # the answer to a question of the kernel before
                        return
            if method == "notifications/cancelled" and isinstance(request.params, dict):
                self._wire.answered(request.params.get("requestId"))  # a cancelled request gets no answer
        self._messages.append(message)
        self.wake()


class Outgoing:
    def __init__(self, wire: Wire, fd: int) -> None:
        self._wire = wire
        self._fd = fd
        self._buffer = bytearray()
        self._polled = _is_polled(fd)
        self._writing = False
        self._room = asyncio.Event()
        self._room.set()
        self.broken = False
        self._blocks = self._polled and os.get_blocking(fd)
        if self._blocks:
            os.set_blocking(fd, False)

    # What the SDK calls

    async def send(self, item: SessionMessage) -> None:
        message, numbers, prefix = item.message, self._wire.numbers, b""
        if self.broken:
            raise anyio.BrokenResourceError
        if numbers is not None:
            prefix = b"0 "
            if not hasattr(message, "method"):
                prefix = numbers.prefix(message.id)
            else:
                message = numbers.renamed(message)
        if not hasattr(message, "method"):
            self._wire.answered(message.id)
        self.put(prefix + _line_of(message))
        await self.has_room()

    async def aclose(self) -> None:
        """The SDK is done writing; `Wire.close` flushes."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None

    # What the wire calls

    def put(self, line: bytes) -> None:
        if self.broken:
            return
        self._buffer += line
        self._buffer += b"\n"
        if not self._writing:
            self._write()
        elif len(self._buffer) > OUTPUT_BYTES_MAX:
            self._room.clear()

    @property
    def roomy(self) -> bool:
        return self._room.is_set()

    async def has_room(self) -> None:
        await self._room.wait()

    def give_up_when_full(self) -> None:
        if not self.roomy:
            self._break()

    async def flush(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._buffer:
                    self._room.clear()
                    await self._room.wait()

    def close(self) -> None:
        self._watch(wanted=False)
        if self._blocks:
            with contextlib.suppress(OSError):
                os.set_blocking(self._fd, True)
        os.close(self._fd)

    def _write(self) -> None:
        try:
            while self._buffer:
                written = os.write(self._fd, memoryview(self._buffer)[:READ_BYTES])
                del self._buffer[:written]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._break()
        self._watch(wanted=bool(self._buffer))
        if len(self._buffer) > OUTPUT_BYTES_MAX:
            self._room.clear()
        elif not self.roomy and len(self._buffer) < OUTPUT_BYTES_MAX // 2:
            self._room.set()
            self._wire.incoming.room_again()

    def _watch(self, *, wanted: bool) -> None:
        if wanted and not self._writing:
            self._wire.loop.add_writer(self._fd, self._write)
        elif self._writing and not wanted:
            self._wire.loop.remove_writer(self._fd)
        self._writing = wanted

    def _break(self) -> None:
        self.broken = True
        self._buffer.clear()
        self._watch(wanted=False)
        self._room.set()
        self._wire.ended()


def _line_of(message: Any) -> bytes:
    wire = message.model_dump(by_alias=True, mode="python", exclude_unset=True)
    return _dumped(wire)


def _dumped(wire: Any) -> bytes:
    try:
        return orjson.dumps(wire)
    except (
        TypeError
    ):  # a lone surrogate or a huge integer, of a guest or a caller: escape it rather than lose the reply
        return json.dumps(wire, separators=(",", ":")).encode()


def _is_polled(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return system.POLLS_PIPES and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
