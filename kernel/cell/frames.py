"""The wire between the kernel and a guest: length-prefixed frames on one inherited stream socket, descriptor 3.

Format
    u32 length of payload, little endian | u8 type | u32 number | payload
Payloads are JSON (UTF-8, no NaN) unless said otherwise; the kernel's loop treats what a guest sends as opaque bytes wherever it can.

    type      from    number                    payload
    START     kernel  0                         JSON, see cell/guest.py
    CALL      guest   ordinal of the call: last + 1, from 0   u8 method | u8 effect | u16 length of path | path | arguments
    DROP      guest   ordinal of an open call   empty: nobody waits for it any more
    IDLE      guest   deliveries consumed       f64 the next timer on the run's clock, NaN for none
    DELIVER   kernel  delivery number: last + 1, from 0       u8 kind | f64 T | u32 ordinal of the call | value
    RUN       kernel  ordinal of a step call    empty: execute its function
    RESULT    guest   ordinal of a step call    JSON {ok | error, files?} of that function
    NOTE      guest   sequence                  JSON {log} or {progress}; may be dropped, never recorded
    END       guest   deliveries consumed       JSON outcome; nothing may follow

Guarantees
1. A frame longer than the reader's cap is refused before a byte of its payload is kept.
2. Nothing here parses a payload; numbers are integers of the header, so JSON types cannot forge them.

Both sides import this file: the kernel as part of its package, the guest from the same bytes behind the wall. Standard library only.
"""

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "CALL", "CALL_HEAD", "DELIVER", "DELIVER_HEAD", "DROP", "EFFECTS", "END", "IDLE", "IDLE_BODY", "KINDS", "METHODS", "NOTE",
    "RESULT", "RUN", "START", "Frame", "FrameTooLong", "Reader", "encode", "receive_start",
]  # fmt: skip

START, CALL, DROP, IDLE, DELIVER, RUN, RESULT, NOTE, END = 1, 2, 3, 4, 5, 6, 7, 8, 10

HEADER = struct.Struct("<IBI")
CALL_HEAD = struct.Struct("<BBH")
DELIVER_HEAD = struct.Struct("<BdI")
IDLE_BODY = struct.Struct("<d")

METHODS = (
    "step", "sandbox.run", "tool", "memory.add", "memory.search", "memory.forget", "memory.edit", "memory.blocks",
    "skill", "spawn", "join", "sleep", "approve", "ask", "model", "send", "receive", "cancel",
    "sandbox.export",
)  # fmt: skip
"""Index = the method byte of CALL. Only ever appended to: recorded runs hold the names."""
EFFECTS = ("at_least_once", "at_most_once")
KINDS = ("ok", "error", "tick", "cancel")


class FrameTooLong(Exception):
    pass


class Frame(NamedTuple):
    type: int
    number: int
    payload: bytes


def encode(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, number) + payload


class Reader:
    """Bytes in, frames out. Holds at most one unfinished frame of at most `payload_bytes_max`."""

    def __init__(self, payload_bytes_max: int) -> None:
        self._cap = payload_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        offset = 0
        try:
            while len(self._buffer) - offset >= HEADER.size:
                length, kind, number = HEADER.unpack_from(self._buffer, offset)
                if length > self._cap:
                    raise FrameTooLong(f"a frame of {length} bytes, the cap is {self._cap}")
                end = offset + HEADER.size + length
                if len(self._buffer) < end:
                    return
                yield Frame(kind, number, bytes(self._buffer[offset + HEADER.size : end]))
                offset = end
        finally:
            del self._buffer[:offset]


def receive_start(sock: socket.socket) -> tuple[Frame | None, int]:
    """The first frame, blocking, and the descriptor that came with it or -1; None when the other side is gone. The guest trusts its lengths."""
    head, descriptors, _, _ = socket.recv_fds(sock, HEADER.size, 1)  # never past it: other frames may follow at once
    stdin = descriptors[0] if descriptors else -1
    if len(head) < HEADER.size:
        return None, stdin
    length, kind, number = HEADER.unpack(head)
    payload = _exactly(sock, length)
    return (None if payload is None else Frame(kind, number, payload)), stdin


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
