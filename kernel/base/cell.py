"""One live sandbox seen from the kernel: its frame socket, its leash, its streams, its watchdog, its end.

    cell = Cell(...); await cell.start(...); cell.watch(); await cell.send(START) ... await cell.receive() ...; await cell.end(kill=...)

Guarantees
1. When `start` returns the child is locked and has run nothing of the guest; when it raises, nothing of the child is left.
2. `end` returns when the last process of the sandbox was reaped by its init; if the init itself does not answer it is killed,
   and in tier full its pid namespace with it.
3. The first reason to stop it is the one that is told.
4. Every descriptor and folder of a cell is given back, also when its waiter is cancelled (`abandon`).

Limits that the system holds by itself (rlimits, tmpfs sizes) are set in cell/layers.py. The watchdog holds the totals: wall time, memory,
tasks, CPU, disk, by looking every WATCH_S (WATCH_IDLE_S at one that has been idle); what can be used between two looks is the
overshoot, and with a cgroup it would be none.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ..cell.frames import Frame, FrameTooLong, Reader
from . import census, system, workspace
from .errors import GuestError
from .limits import Limits
from .output import Stream
from .pool import Birth, Refused, Zygote
from .ports import Ports
from .reserve import Reserved

__all__ = ["Bounds", "Cell", "Ended", "Place", "Usage"]

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

WATCH_S = 0.02
WATCH_IDLE_S, QUIET_LOOKS = 0.16, 10
"""A tree that used no CPU for so many looks is looked at less often: most programs wait most of the time, and hundreds may."""
WATCH_DISK_S = 0.1
LOOKED_AT_HERE = 4
"""Processes whose descriptors are listed without a thread: most sandboxes have one process and few descriptors."""
BIRTH_S = 20.0
DEATH_S = 10.0
ALL_SEALS = 0x1F & ~0x10


@dataclass(frozen=True, slots=True)
class Usage:
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known when the last process of a cell is dead. `exit_code` None: it was killed, by us or by nobody knows."""

    exit_code: int | None
    signal: int | None
    stopped_by: str | None
    stdout: Stream
    stderr: Stream
    usage: Usage
    files: tuple[workspace.Found, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this cell may use; None is no bound of its own."""

    memory_bytes: int
    tasks: int
    timeout_s: float | None
    cpu_s: float | None = None


@dataclass(slots=True)
class Place:
    """What a cell owns on this side until it is reaped: its uid (as root), its folders (tier confined)."""

    reserved: Reserved | None = None
    scratch: Path | None = None

    def clear(self) -> None:
        """The files first: a uid that returns must own nothing."""
        if self.scratch is not None:
            workspace.clear(self.scratch)
        if self.reserved is not None:
            self.reserved.release()


class Cell:
    def __init__(
        self, sandbox: str, *, zygote: Zygote, ports: Ports, limits: Limits, spawn: Spawn, bounds: Bounds, place: Place
    ) -> None:
        self.id = sandbox
        self.layers: tuple[str, ...] = ()
        self.stopped_by: str | None = None
        self.ended: Ended | None = None
        """What `end` returned."""
        self._zygote, self._clock, self._limits, self._spawn = zygote, ports.clock, limits, spawn
        self._bounds, self._place = bounds, place
        self._loop = asyncio.get_running_loop()
        self._frames, self._their_frames = _pair(socket.SOCK_STREAM)
        self._leash, self._their_leash = _pair(socket.SOCK_SEQPACKET)
        self._reader = Reader(limits.guest_frame_bytes_max)
        self._up: asyncio.Future[tuple[str, ...]] = self._loop.create_future()
        self._down: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._gone = True
        """There is no child: not yet asked for, or reaped."""
        self._birth: Birth | None = None
        self._workspace = -1
        self._scratch = (
            -1 if place.scratch is None else os.open(place.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        self.output_bytes = 0
        self._peak_bytes = 0
        self._channel_bytes = 0
        self._began = self._clock.monotonic()
        self._closed = False
        self._users = 0
        self.on_close: Callable[[], None] | None = None

    @property
    def pid(self) -> int:
        """The cell's init, as the host numbers it."""
        assert self._birth is not None
        return self._birth.pid

    # --- birth

    async def start(self, request: Mapping[str, Any], stdin: bytes) -> None:
        """Fork it and wait until it is locked. Raises Refused with the layer that failed."""
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        kept = self._limits.output_bytes_kept
        self._stdout, self._stderr = (Stream(end[0], kept, self.count_output) for end in ends)
        self._loop.add_reader(self._leash.fileno(), self._hear)
        source = _stdin(stdin)
        for end in ends if os.geteuid() == 0 else ():
            os.fchown(end[1], request["uid"], request["gid"])  # so that /dev/stdout opens
        given = [self._their_leash.fileno(), self._their_frames.fileno(), source, *(end[1] for end in ends)]
        try:
            self._gone = False
            self._birth = await self._zygote.spawn(request, given, self._reaped)
            self.layers = await self._within(self._up, BIRTH_S)
        except BaseException:
            self.abandon()
            raise
        finally:
            for descriptor in given[2:]:
                os.close(descriptor)
            self._their_leash.close()
            self._their_frames.close()

    async def _within(self, future: "asyncio.Future[Any]", seconds: float) -> Any:
        patience = self._spawn(self._clock.sleep(seconds), f"{self.id} patience")
        try:
            await asyncio.wait((future, patience), return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise Refused("zygote", f"the child did not answer within {seconds:.0f} s")
            return future.result()
        finally:
            patience.cancel()

    def _hear(self) -> None:
        """Every packet there is: after a reset libuv watches a socket no more, so nothing may be left for a next time."""
        while not self._closed:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._leash, 1 << 16, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it left with a "K" unread; its last word comes with the next read
            except OSError:
                packet, descriptors = b"", []
            message: dict[str, Any] = json.loads(packet) if packet else {}
            if "up" in message:
                self._workspace = descriptors[0]
                _settle(self._up, tuple(message["up"]))
            elif "failed" in message:
                _fail(self._up, Refused(message["failed"], message["reason"]))
            else:  # its last word, or none: the init is gone
                self._loop.remove_reader(self._leash.fileno())
                _fail(self._up, Refused("init", "the child died while it was being locked"))
                _settle(self._down, message or {"ended": None, "cpu_s": 0.0, "peak_bytes": 0})
                return

    # --- life

    async def send(self, frame_bytes: bytes) -> None:
        """Waits while the socket is full. A guest that is gone takes nothing; `receive` tells."""
        with self._using_frames(), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._loop.sock_sendall(self._frames, frame_bytes)

    async def receive(self) -> list[Frame]:
        """Whole frames that have arrived, at least one; [] when the guest has closed its end or is dead."""
        while not self._closed:
            try:
                with self._using_frames():
                    data = await self._loop.sock_recv(self._frames, 1 << 18)
            except ConnectionResetError:
                return []
            if not data:
                return []
            try:
                frames = list(self._reader.feed(data))
            except FrameTooLong as error:
                raise GuestError("guest.protocol", f"The guest sent {error}.") from error
            if frames:
                return frames
        return []

    @contextlib.contextmanager
    def _using_frames(self) -> Iterator[None]:
        """A descriptor must not be closed under somebody who waits for it: the last user closes it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._closed and not self._users:
                self._frames.close()

    def watch(self) -> None:
        """Begin to hold it to its bounds: before START, so that no moment of the guest's own goes unseen."""
        self._began = self._clock.monotonic()
        self._spawn(self._watchdog(), f"{self.id} watchdog")

    async def _watchdog(self) -> None:
        disk_due, killed_at, quiet, cpu_s = 0.0, 0.0, 0, -1.0
        while not self._down.done():
            now = self._clock.monotonic()
            wait = min(WATCH_IDLE_S, WATCH_S * 2 ** max(0, quiet - QUIET_LOOKS))
            if self._bounds.timeout_s is not None:
                wait = max(0.001, min(wait, self._began + self._bounds.timeout_s - now))
            await self._clock.sleep(wait)
            if self._down.done():
                return
            now = self._clock.monotonic()
            if self._bounds.timeout_s is not None and now >= self._began + self._bounds.timeout_s:
                self.stop("timeout")
            seen = census.census(self.pid)
            quiet = quiet + 1 if seen.cpu_s == cpu_s else 0
            cpu_s = seen.cpu_s
            await self._judge(seen)
            if now >= disk_due:
                few = len(seen.pages) <= LOOKED_AT_HERE
                look = partial(census.unseen, seen.pages, self._bounds.memory_bytes, own_network=self._scratch < 0)
                self._channel_bytes = look() if few else await asyncio.to_thread(look)
                await self._judge_disk(list(seen.pages))
                disk_due = now + max(WATCH_DISK_S, 10 * (self._clock.monotonic() - now))
            if self.stopped_by is not None:
                killed_at = killed_at or now
                if now - killed_at > DEATH_S:
                    self._kill_init()

    async def _judge(self, seen: census.Census) -> None:
        if seen.tasks > self._bounds.tasks:
            self.stop("processes")
            return
        memory = seen.memory_bytes + self._channel_bytes
        if (
            memory > self._bounds.memory_bytes
        ):  # an estimate on the high side; the exact figure costs a walk of page tables
            memory = await asyncio.to_thread(census.exact_memory, seen) + self._channel_bytes
        self._peak_bytes = max(self._peak_bytes, memory)
        if memory > self._bounds.memory_bytes:
            self.stop("memory")
        elif self._bounds.cpu_s is not None and seen.cpu_s > self._bounds.cpu_s:
            self.stop("cpu")

    async def _judge_disk(self, pids: list[int]) -> None:
        if self._workspace < 0:
            return
        if self._scratch < 0:  # the workspace is on a tmpfs of bounded size: full is full
            room = os.fstatvfs(self._workspace)
            over = room.f_bavail == 0 or room.f_favail == 0
        else:
            used = await asyncio.to_thread(workspace.usage, [self._scratch], pids)
            over = used.bytes > self._limits.workspace_bytes_max or used.inodes > self._limits.workspace_inodes_max
        if over:
            self.stop("disk")

    def count_output(self, count: int) -> None:
        self.output_bytes += count
        if self.output_bytes > self._limits.output_bytes_max:
            self.stop("output")

    def stop(self, reason: str) -> None:
        """Kill the tree for a reason that the result names; the first one counts."""
        if not self._down.done():
            self.stopped_by = self.stopped_by or reason
            self._kill()

    # --- the end

    async def end(self, *, kill: bool, given: Mapping[str, bytes] | None = None) -> Ended:
        """Kill the tree if asked, else wait until the guest ends by itself; then look at what it left."""
        try:
            if kill:
                self._kill()
                await self._dead()
            last = await self._down
            self.ended = await self._look(last, given or {})
            return self.ended
        finally:
            self.abandon()

    async def _dead(self) -> None:
        try:
            await self._within(self._down, DEATH_S)
        except Refused:
            self._kill_init()

    async def _look(self, last: Mapping[str, Any], given: Mapping[str, bytes]) -> Ended:
        wall_s = self._clock.monotonic() - self._began
        self._stdout.close()
        self._stderr.close()
        status = last["ended"]
        code = None if status is None else os.waitstatus_to_exitcode(status)
        number = -code if code is not None and code < 0 else None
        reason = self.stopped_by or ("killed" if status is None else _REASONS.get(number))
        files: tuple[workspace.Found, ...] = ()
        if self._workspace >= 0:
            files = tuple(await asyncio.to_thread(workspace.collect, self._workspace, given, self._limits))
        if reason is not None:
            code = None
        elif number is not None:
            code = 128 + number
        used = Usage(wall_s, last["cpu_s"], max(self._peak_bytes, last["peak_bytes"]))
        return Ended(code, number, reason, self._stdout, self._stderr, used, files)

    def abandon(self) -> None:
        """Let go of everything; dropping the leash kills the tree if it still lives. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        _settle(self._down, {"ended": None, "cpu_s": 0.0, "peak_bytes": 0})
        self._loop.remove_reader(self._leash.fileno())
        self._leash.close()
        with contextlib.suppress(OSError):
            self._frames.shutdown(socket.SHUT_RDWR)  # whoever waits on it is woken
        if not self._users:
            self._frames.close()
        for stream in (self._stdout, self._stderr):
            stream.close()
        for descriptor in (self._workspace, self._scratch):
            if descriptor >= 0:
                os.close(descriptor)
        if self._gone:
            self._clear()
        if self.on_close is not None:
            self.on_close()

    def _reaped(self, _: object) -> None:
        self._gone = True
        if self._birth is not None:
            os.close(self._birth.pidfd)
        if self._closed:
            self._clear()

    def _clear(self) -> None:
        """Once the child is reaped and nobody looks at its files any more, whichever comes last."""
        if self._place.scratch is None:
            self._place.clear()
        else:  # not a task: what ends tasks at the close must not end this
            self._loop.run_in_executor(None, self._place.clear)

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            self._leash.send(b"K")

    def _kill_init(self) -> None:
        if self._birth is not None and not self._birth.reaped.done():
            signal.pidfd_send_signal(self._birth.pidfd, signal.SIGKILL)


_REASONS = system.by_signal(SIGXFSZ="files", SIGXCPU="cpu")


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)  # noqa: FBT003  the standard library's own
    return ours, theirs


def _stdin(data: bytes) -> int:
    """A descriptor that reads `data`; of a sealed memory file, so that nobody waits for anybody to read."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memory, view) :]
        system.fcntl.fcntl(memory, system.fcntl.F_ADD_SEALS, ALL_SEALS)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)


def _settle(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at: nobody may be waiting any more, and that is fine
