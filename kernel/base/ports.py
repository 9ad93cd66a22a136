"""The only door to what is not deterministic: clock, ids, randomness, environment, and the two doors upward.

A `Ports` is built once, by `Ports.real()` or by a test, and handed to `Kernel.open`. Nothing else is injected and there is no global.

Guarantees
1. No other file of the kernel asks for the time, sleeps, makes an id, draws a random byte or reads the environment.
2. Ids are `prefix_` and 12 characters of base32: unguessable (60 bits of the system's entropy) and short enough to be copied by a model.
3. `tools` and `model` are None until somebody above supplies them; the kernel never looks for one by itself.

Not here: time inside a guest program, which moves only with deliveries (cell/turns.py).
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

__all__ = ["LOCAL", "Clock", "Model", "Ports", "SystemClock", "Tools", "rfc3339"]

LOCAL = "local"
"""The principal of everybody who reaches the kernel as this machine's user: stdio, and the embedded API."""


class Clock(Protocol):
    def now(self) -> float:
        """Unix time in seconds; may jump. For what is stored and shown."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never falls. For durations."""

    async def sleep(self, seconds: float) -> None: ...


class Tools(Protocol):
    """Tools of other servers, by policy. Supplied by mcp_server."""

    async def call(self, principal: str, name: str, arguments: Mapping[str, Any]) -> Any: ...


class Model(Protocol):
    """A configured language model. Supplied by mcp_server."""

    async def complete(self, prompt: str, schema: Mapping[str, Any] | None) -> Any: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Ports:
    clock: Clock
    entropy: Callable[[int], bytes]
    environ: Mapping[str, str]
    probe: Callable[[str], None] | None = None
    """Called at named points (`store.before_commit`, ...) so that a test can stop the world there."""
    tools: Tools | None = None
    model: Model | None = None

    @staticmethod
    def real() -> "Ports":
        return Ports(clock=SystemClock(), entropy=os.urandom, environ=dict(os.environ))

    def new_id(self, prefix: str) -> str:
        """`run_4jx7...`: 12 lower-case base32 characters."""
        return f"{prefix}_{base64.b32encode(self.entropy(8)).decode()[:12].lower()}"


def rfc3339(unix_s: float) -> str:
    """`2026-11-23T14:08:41.123Z`, the one form in which a time leaves the kernel."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
