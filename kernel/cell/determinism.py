"""What differs between two starts of CPython, made equal: the clock, randomness, identifiers, and when garbage is collected.

A program is run again from its beginning after every crash, so whatever it reads that is not a delivery must read the same. Here the
sources are replaced inside this process, for the program's life; a forked child gets the originals back.

Guarantees
1. `time`, `datetime`, `random`, `secrets`, `uuid`, `os.urandom`, `os.getrandom`, numpy's seeding and temporary names are functions of
   (seed, epoch, deliveries so far, reads so far).
2. Every read of the clock is later than the one before by at least a microsecond; it never falls.
3. `datetime` stays the type it is: its methods are replaced in place, so `type(x) is datetime` and pickles hold.
4. Cycles are collected only when `collect` is called, so finalisers of cycles run at fixed deliveries.

Not here: hash order of text (PYTHONHASHSEED=0 in the zygote), hashes of tasks (turns.py), C code that asks the system for the time or
for random bytes by itself (OpenSSL does). Standard library only.
"""

import ctypes
import datetime as dt
import gc
import hashlib
import math
import os
import random
import sys
import time
import types
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["Clock", "Patches", "Stream", "real_sleep", "refuse", "seal", "unseal"]

real_sleep = time.sleep

READ_S = 1e-6


class Clock:
    """The run's clock: `now` is T, seconds since the run began, and moves only with deliveries and timers."""

    def __init__(self, epoch: float) -> None:
        self.epoch = epoch
        self.now = 0.0
        self._read = 0.0

    def advance(self, at: float) -> None:
        self.now = max(self.now, at)

    def read(self) -> float:
        """For programs: a little later at each read, so that a loop until a deadline ends and a rate divides by something."""
        self._read = max(self.now, self._read + READ_S)
        return self._read

    def read_unix(self) -> float:
        return self.epoch + self.read()

    def resolution(self) -> float:
        """A float near `now` cannot be told from one nearer than this."""
        return max(1e-9, 2 * math.ulp(self.now))


class Stream:
    """Bytes without end from one seed: keyed blake2b over a counter."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._block = 0
        self._rest = b""

    def take(self, size: int) -> bytes:
        if size < 0:
            raise ValueError("negative argument not allowed")
        parts = [self._rest]
        have = len(self._rest)
        while have < size:
            parts.append(hashlib.blake2b(self._block.to_bytes(8, "little"), key=self._seed).digest())
            self._block += 1
            have += 64
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


class Patches:
    """Replaced attributes, and the way back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        if not hasattr(owner, name):
            return
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def method(self, kind: type, name: str, value: Any) -> None:
        """Replace a method of a type written in C, which refuses assignment."""
        entries = gc.get_referents(kind.__dict__)[0]
        before = entries[name]

        def put(method: Any) -> None:
            entries[name] = method
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))

        put(value)
        self._undo.append(lambda: put(before))

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


def seal(patches: Patches, clock: Clock, stream: Stream, sleep: Callable[[float], None]) -> None:
    """Replace every source. `sleep` is what `time.sleep` becomes."""
    _seal_time(patches, clock, sleep)
    _seal_datetime(patches, clock)
    _seal_random(patches, stream)
    _seal_uuid(patches, stream)
    gc.disable()
    patches.set(gc, "enable", lambda: None)  # a program may not choose when finalisers run


def _seal_time(patches: Patches, clock: Clock, sleep: Callable[[float], None]) -> None:
    def nanoseconds(read: Callable[[], float]) -> Callable[[], int]:
        return lambda: int(read() * 1e9)

    def unix_ns() -> int:
        return int(clock.epoch) * 1_000_000_000 + int((clock.epoch % 1 + clock.read()) * 1e9)

    patches.set(time, "time", clock.read_unix)
    patches.set(time, "time_ns", unix_ns)
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        patches.set(time, name, clock.read)
        patches.set(time, f"{name}_ns", nanoseconds(clock.read))
    patches.set(time, "clock_gettime", lambda which: clock.read() if which else clock.read_unix())
    patches.set(time, "clock_gettime_ns", lambda which: int(clock.read() * 1e9) if which else unix_ns())
    for name in ("gmtime", "localtime", "ctime"):
        patches.set(time, name, _at_now(getattr(time, name), clock))
    asctime, strftime, localtime = time.asctime, time.strftime, time.localtime
    patches.set(time, "asctime", lambda t=None: asctime(localtime() if t is None else t))
    patches.set(time, "strftime", lambda form, t=None: strftime(form, localtime() if t is None else t))
    patches.set(time, "sleep", sleep)


def _at_now(function: Callable[[float], Any], clock: Clock) -> Callable[..., Any]:
    def called(secs: float | None = None) -> Any:
        return function(clock.read_unix() if secs is None else secs)

    return called


def _seal_datetime(patches: Patches, clock: Clock) -> None:
    def now(cls: type[dt.datetime], tz: dt.tzinfo | None = None) -> dt.datetime:
        return cls.fromtimestamp(clock.read_unix(), tz)

    def utcnow(cls: type[dt.datetime]) -> dt.datetime:
        return cls.fromtimestamp(clock.read_unix(), dt.UTC).replace(tzinfo=None)

    def today(cls: type[dt.date]) -> dt.date:
        return cls.fromtimestamp(clock.read_unix())

    patches.method(dt.datetime, "now", classmethod(now))
    patches.method(dt.datetime, "utcnow", classmethod(utcnow))
    patches.method(dt.date, "today", classmethod(today))


def _seal_random(patches: Patches, stream: Stream) -> None:
    seed = random.Random.seed

    def seeded(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, int.from_bytes(stream.take(32), "little") if a is None else a, version)

    patches.set(os, "urandom", stream.take)
    patches.set(os, "getrandom", lambda size, flags=0: stream.take(size))  # noqa: ARG005 - the system call's second argument
    patches.set(random, "_urandom", stream.take)  # imported by name there, before us
    patches.set(random.Random, "seed", seeded)
    patches.set(random, "seed", random._inst.seed)  # noqa: SLF001 - bound there, before us
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(stream.take(4), "little"))


def _seal_uuid(patches: Patches, stream: Stream) -> None:
    node = int.from_bytes(stream.take(6), "big") | 1 << 40  # the multicast bit: not a network card's
    patches.set(uuid, "getnode", lambda: node)
    patches.set(uuid, "_generate_time_safe", None)
    patches.set(uuid, "_last_timestamp", None)


def unseal(patches: Patches) -> None:
    """In a forked child: the system's own sources again, and randomness that no sibling shares."""
    patches.undo()  # `random` seeds itself anew in a child
    gc.enable()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def refuse(patches: Patches, owner: types.ModuleType, name: str, message: str) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError(message)

    patches.set(owner, name, refused)
