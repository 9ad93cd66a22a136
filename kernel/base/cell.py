"""One live sandbox seen from the kernel: its frame socket, its leash, its streams, its bounds, its end.

    cell = Cell(...); await cell.start(request)                           locked; may now be parked for as long as it lives
    cell.arm(bounds); cell.begin(start, stdin)                            its one call
    ... await cell.receive() ... await cell.send(...)
    await cell.finish()    END is here: kill, look at what it left, and reply; it is reaped behind the reply
    await cell.end(...)    it ends by itself, or is killed, and the answer waits until every process is dead

Guarantees
1. When `start` returns the child is locked and has run nothing of the guest; when it raises, nothing of the child is left.
2. `end` returns when the last process of the sandbox is dead. `finish` returns when all are killed; where more than one was there, files are
   looked at when all are dead, so that nobody still writes them.
3. The first reason to stop it is the one that is told.
4. `reaped` is done when no process of it is left, also when its waiter is cancelled (`abandon`); uid and folders return only then.

What the frame of a guest says is its claim; `usage` is read from the system just before the kill: CPU of the guest with the children it
waited for, and the peak of the largest process or of a look of the watchdog, whichever is more.

Limits that the system holds by itself (rlimits, tmpfs sizes) are set in cell/layers.py. The totals are held by looking (watch.py) every
WATCH_S, or every WATCH_IDLE_S at one that has been idle; what can be used between two looks is the overshoot.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..cell.frames import START, Frame, FrameTooLong, Reader, encode
from . import census, pool, system, workspace
from .cgroups import Group, Most
from .errors import GuestError
from .limits import Limits
from .output import Stream
from .places import Place, address_space_bytes
from .pool import Birth, Reaped, Refused, Zygote
from .ports import Ports
from .watch import Watch

__all__ = ["Bounds", "Cell", "Ended", "Spawn", "Usage"]

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

WATCH_S = 0.02
WATCH_IDLE_S, QUIET_LOOKS = 0.16, 10
"""A tree that used no CPU for so many looks is looked at less often: most programs wait most of the time, and hundreds may."""
WATCH_DISK_S = 0.1
LOOKED_AT_HERE = 4
"""Processes that are looked at without a thread: most sandboxes have one process and few descriptors."""
BIRTH_S = 20.0
DEATH_S = 10.0
QUICK_S = 0.005
"""A call that was over so soon has not filled its memory: its group is not asked on the way of the reply."""
READ_BYTES = 1 << 16
INBOX_BYTES_MAX = 1 << 20
"""Frames that nobody has taken yet; past it the socket is not read, and the guest waits."""
ALL_SEALS = 0x1F & ~0x10


@dataclass(frozen=True, slots=True)
class Usage:
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a cell whose processes are dead or killed. `exit_code` None: it was killed, by us or by nobody knows."""

    exit_code: int | None
    signal: int | None
    stopped_by: str | None
    stdout: Stream
    stderr: Stream
    usage: Usage
    files: tuple[workspace.Found, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may use; None is no bound of its own."""

    memory_bytes: int
    tasks: int
    nproc: int
    """RLIMIT_NPROC, for the moment between two looks; counts what its uid has elsewhere, where it shares it."""
    timeout_s: float | None
    cpu_s: float | None = None


NO_BOUNDS = Bounds(0, 0, 0, None)


class Cell:
    def __init__(
        self, sandbox: str, *, zygote: Zygote, ports: Ports, limits: Limits, spawn: Spawn, watch: Watch, place: Place
    ) -> None:
        self.id = sandbox
        self.layers: tuple[str, ...] = ()
        self.stopped_by: str | None = None
        self.ended: Ended | None = None
        self._zygote, self._clock, self._limits, self._spawn, self._watch = zygote, ports.clock, limits, spawn, watch
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._frames, self._their_frames = _pair(socket.SOCK_STREAM)
        self._leash, self._their_leash = _pair(socket.SOCK_SEQPACKET)
        self._reader = Reader(limits.guest_frame_bytes_max)
        self._inbox: list[Frame] = []
        self._inbox_bytes = 0
        self._hears_frames = False
        self._frames_over = False
        self._broken: GuestError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._up: asyncio.Future[tuple[str, ...]] = self._loop.create_future()
        self._down: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self.reaped: asyncio.Future[None] = self._loop.create_future()
        self._birth: Birth | None = None
        self._guest = 0
        self._eyes: census.LastLook | None = None
        self._workspace = -1
        self._bare_bytes = 0
        self._scratch = (
            -1 if place.scratch is None else os.open(place.scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        self.output_bytes = 0
        """Produced so far by both streams and the notes."""
        self._bounds = NO_BOUNDS
        self._began = self._clock.monotonic()
        self._cpu_before_s = self._cpu_seen_s = 0.0
        self._peak_bytes = self._channel_bytes = 0
        self._disk_due = self._killed_at = 0.0
        self._quiet = 0
        self._spent = census.Spent()
        self._cpu_looked_s = -1.0
        self._most: Most | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self._senders = 0
        self.on_close: Callable[[], None] | None = None
        """When it is let go of; `reaped` may come later."""
        self.on_lost: Callable[[], None] | None = None
        self.orphaned = False
        """Its zygote died, and it of that."""
        """It has died before its call."""

    @property
    def pid(self) -> int:
        """Of the process whose end is the sandbox's: the init or the keeper, as the host numbers it."""
        assert self._birth is not None
        return self._birth.pid

    @property
    def guest(self) -> int:
        """Of the guest itself, as the host numbers it."""
        return self._guest

    @property
    def uid(self) -> int:
        """Its user, as the host numbers it."""
        return os.geteuid() if self._place.reserved is None else self._place.reserved.uid

    @property
    def group(self) -> Group | None:
        return self._place.group

    @property
    def alive(self) -> bool:
        return not self._closed and not self._down.done()

    @property
    def usable(self) -> bool:
        """For a call. One whose zygote died may live for a moment still, but nobody would reap it in order."""
        return self.alive and self._zygote.alive

    # --- birth

    async def start(self, request: Mapping[str, Any]) -> None:
        """Fork it and wait until it is locked. Raises Refused with the layer that failed."""
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        kept = self._limits.output_bytes_kept
        self._stdout, self._stderr = (Stream(end[0], kept, self.count_output) for end in ends)
        self._loop.add_reader(self._leash.fileno(), self._hear)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for end in ends if os.geteuid() == 0 else ():
            os.fchown(end[1], request["uid"], request["gid"])  # so that /dev/stdout opens
        given = [self._their_leash.fileno(), self._their_frames.fileno(), null, *(end[1] for end in ends)]
        try:
            try:
                self._birth = await self._zygote.spawn(request, given, self._reaped, self._orphan)
            finally:  # before the wait: else nobody hears the end of a child that dies while it is locked
                for descriptor in given[2:]:
                    os.close(descriptor)
                self._their_leash.close()
                self._their_frames.close()
            async with asyncio.timeout(BIRTH_S):
                self.layers = await self._up
        except TimeoutError:
            self.abandon()
            raise Refused("zygote", f"the child did not answer within {BIRTH_S:.0f} s") from None
        except BaseException:
            self.abandon()
            raise
        self._guest = self._birth.guest or next(iter(census.children(self._birth.pid)), 0)
        with contextlib.suppress(OSError):
            self._eyes = census.LastLook(self._guest)
        self._hear_frames()

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
                self._bare_bytes = os.fstat(self._workspace).st_size
                _settle(self._up, tuple(message["up"]))
                if self._has_init:
                    self._loop.remove_reader(
                        self._leash.fileno()
                    )  # its guest has closed it: what follows comes from the zygote
                    return
            elif "failed" in message:
                _fail(self._up, Refused(message["failed"], message["reason"]))
            else:  # its last word, or none: the child is gone
                self._loop.remove_reader(self._leash.fileno())
                _fail(self._up, Refused("init", "the child died while it was being locked"))
                if self._scratch >= 0:
                    last = {"status": message.get("ended"), "cpu_s": 0.0, "peak_bytes": 0, **message}
                    self._dead(last)
                return

    @property
    def _has_init(self) -> bool:
        """Tier full: the end comes from the zygote; else from a keeper's leash."""
        return self._place.scratch is None

    def join(self, group: Group, most: Most, layer: str, on_group: Callable[[Group], None]) -> bool:
        """Its guest is in `group` since a moment ago. False when it is dead. One whose call came meanwhile keeps the group and does not
        claim it as a layer: it may have begun outside.
        """
        if not self.alive:
            return False
        self._place.group, self._place.on_group, self._most = group, on_group, most
        if self._bounds is NO_BOUNDS:
            self.layers = (*self.layers, layer)
        else:
            self._limit_group()
        return True

    # --- its one call

    def arm(self, bounds: Bounds) -> None:
        """Its bounds from now on. `begin` has the watchdog look after it."""
        self._bounds = bounds
        self._limit_group()
        self._began = self._clock.monotonic()
        self._cpu_before_s = self._own_cpu_s()

    def _limit_group(self) -> None:
        """In tier full the workspace is memory and counts for the group: together they are its ceiling, the watchdog holds the memory alone."""
        room = self._limits.workspace_bytes_max if self._has_init else 0
        most = Most(self._bounds.memory_bytes + room, self._bounds.tasks)
        if self.group is not None and most != self._most:
            self._most = most
            self._loop.run_in_executor(None, self.group.try_limit, most)  # nobody takes a gigabyte before that is done

    def begin(self, start: Mapping[str, Any], stdin: bytes = b"") -> bytes:
        """Send START with the call's own bounds, and have them watched; what the socket did not take at once is for `send`."""
        bounds = {
            "memory_bytes": address_space_bytes(self._bounds.memory_bytes), "processes": self._bounds.nproc,
            "cpu_s": None if self._bounds.timeout_s is None else int(max(self._bounds.timeout_s, self._bounds.cpu_s or 0)) + 2,
        }  # fmt: skip
        frame = encode(START, 0, json.dumps({**start, "bounds": bounds}).encode())
        try:
            self._watch.add(self, self._began + min(WATCH_S, self._bounds.timeout_s or WATCH_S))
            if not stdin:
                return frame[self._frames.send(frame) :]
            source = _stdin(stdin)
            try:
                return frame[socket.send_fds(self._frames, [frame], [source]) :]
            finally:
                os.close(source)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return b""  # gone: `receive` tells

    async def send(self, frame_bytes: bytes) -> None:
        """Waits while the socket is full. A guest that is gone takes nothing; `receive` tells."""
        with self._sending(), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._loop.sock_sendall(self._frames, frame_bytes)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        """A descriptor must not be closed under somebody who waits for it: the last user closes it."""
        self._senders += 1
        try:
            yield
        finally:
            self._senders -= 1
            if self._closed and not self._senders:
                self._frames.close()

    async def receive(self) -> list[Frame]:
        """Whole frames that have arrived, at least one; [] when the guest has closed its end or is dead."""
        while not self._inbox:
            if self._broken is not None:
                raise self._broken
            if self._frames_over or self._closed:
                return []
            self._waiting = self._loop.create_future()
            await self._waiting
        found, self._inbox, self._inbox_bytes = self._inbox, [], 0
        self._hear_frames()
        return found

    def _hear_frames(self) -> None:
        if not (self._hears_frames or self._frames_over or self._closed):
            self._hears_frames = True
            self._loop.add_reader(self._frames.fileno(), self._readable)

    def _deaf(self) -> None:
        if self._hears_frames:
            self._hears_frames = False
            self._loop.remove_reader(self._frames.fileno())

    def _readable(self) -> None:
        """One read: a guest that floods its channel must hold up nobody, its own watchdog least."""
        try:
            data = self._frames.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            self._inbox += self._reader.feed(data)
        except FrameTooLong as error:
            self._broken = GuestError("guest.protocol", f"The guest sent {error}.")
        self._inbox_bytes += len(data)
        if not data or self._broken is not None:
            self._frames_over = True
        if self._frames_over or (
            self._inbox and self._inbox_bytes > INBOX_BYTES_MAX
        ):  # half a frame is nobody's to take
            self._deaf()
        if self._inbox or self._frames_over:
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- its bounds

    def look(self, now: float) -> float:
        """The watchdog's; returns when to look again."""
        if not self.alive:
            self._watch.discard(self)
            return now
        timeout_s = self._bounds.timeout_s
        if timeout_s is not None and now >= self._began + timeout_s:
            self.stop("timeout")
        if self.stopped_by is not None:
            self._killed_at = self._killed_at or now
            if now - self._killed_at > DEATH_S:
                self._kill(everything=True)
        if self._looking is None or self._looking.done():
            self._looking = None
            self._judge(now)
        wait: float = min(WATCH_IDLE_S, WATCH_S * 2 ** max(0, self._quiet - QUIET_LOOKS))
        if timeout_s is not None and self.stopped_by is None:
            wait = max(0.0, min(wait, self._began + timeout_s - now))
        return now + wait

    def _judge(self, now: float) -> None:
        seen = census.census(self.pid, self._guest)
        cpu_s = self._spent.by(seen)
        self._quiet = self._quiet + 1 if cpu_s == self._cpu_looked_s else 0
        self._cpu_looked_s = cpu_s
        self._cpu_seen_s = max(self._cpu_seen_s, cpu_s)
        if seen.tasks > self._bounds.tasks:
            self.stop("processes")
            return
        disk = now >= self._disk_due
        estimate = seen.memory_bytes + self._channel_bytes
        long = (
            len(seen.pages) > LOOKED_AT_HERE or self._scratch >= 0 or (disk and not census.few_descriptors(seen.pages))
        )
        if estimate > self._bounds.memory_bytes or (disk and long):
            self._looking = self._spawn(self._look_closely(seen, disk=disk), f"{self.id} watchdog")
            return
        if disk:
            self._channel_bytes = self._unseen(seen)
            self._disk_due = now + WATCH_DISK_S
            self._judge_tmpfs()
            self._judge_group()
        self._judge_totals(seen.memory_bytes + self._channel_bytes)

    async def _look_closely(self, seen: census.Census, *, disk: bool) -> None:
        """What takes longer than the others should wait: page tables, many descriptors, folders of the host."""
        began = self._clock.monotonic()
        memory = seen.memory_bytes
        if disk:
            self._channel_bytes = await asyncio.to_thread(self._unseen, seen)
        if memory + self._channel_bytes > self._bounds.memory_bytes:  # an estimate on the high side
            memory = await asyncio.to_thread(census.exact_memory, seen)
        self._judge_totals(memory + self._channel_bytes)
        if disk and not self._closed:
            self._judge_group()
            if self._scratch < 0:
                self._judge_tmpfs()
            else:
                used = await asyncio.to_thread(workspace.usage, [self._scratch], list(seen.pages))
                if used.bytes > self._limits.workspace_bytes_max or used.inodes > self._limits.workspace_inodes_max:
                    self.stop("disk")
            now = self._clock.monotonic()
            self._disk_due = now + max(WATCH_DISK_S, 10 * (now - began))

    def _unseen(self, seen: census.Census) -> int:
        return census.unseen(seen.pages, self._bounds.memory_bytes, own_network=self._has_init)

    def _judge_group(self) -> None:
        """What the system counted, and what it refused or killed for it."""
        if self.group is None:
            return
        if self._ask_group(self.group):
            self.stop("memory")
        elif self.group.count().too_many_tasks:
            self.stop("processes")

    def _ask_group(self, group: Group) -> bool:
        """Whether somebody in it was killed for memory; takes over its figures."""
        counted = group.count()
        self._cpu_seen_s = max(self._cpu_seen_s, self._cpu_before_s + (counted.cpu_s or 0.0))
        if counted.out_of_memory:
            self._peak_bytes = max(self._peak_bytes, self._bounds.memory_bytes)
        return counted.out_of_memory

    def _judge_totals(self, memory_bytes: int) -> None:
        self._peak_bytes = max(self._peak_bytes, memory_bytes)
        if memory_bytes > self._bounds.memory_bytes:
            self.stop("memory")
        elif self._bounds.cpu_s is not None and self._cpu_seen_s - self._cpu_before_s > self._bounds.cpu_s:
            self.stop("cpu")

    def _judge_tmpfs(self) -> None:
        """The workspace is on one of bounded size: full is full."""
        if self._workspace >= 0:
            room = os.fstatvfs(self._workspace)
            if room.f_bavail == 0 or room.f_favail == 0:
                self.stop("disk")

    def count_output(self, count: int) -> None:
        self.output_bytes += count
        if self.output_bytes > self._limits.output_bytes_max:
            self.stop("output")

    def stop(self, reason: str) -> None:
        """Kill the tree for a reason that the result names; the first one counts."""
        if not self._down.done() and self.ended is None:
            self.stopped_by = self.stopped_by or reason
            self._note_usage()
            self._kill()

    def _orphan(self) -> None:
        self.orphaned = self.stopped_by is None
        self.stop("killed")
        if self._has_init:  # whoever adopts the guest may never reap it, and then its init never ends
            self._dead(pool.NEVER_SEEN)

    def cpu_s(self) -> float:
        """Used by now by all its processes, as far as can be seen; begins before its call."""
        return census.census(self.pid, self._guest).cpu_s if self._birth is not None else 0.0

    # --- the end

    async def finish(self, given: Mapping[str, bytes]) -> Ended:
        """END has come: the guest lingers. Kill, and look at what it left. The caller must `abandon` it, which can wait for the reply."""
        self._watch.discard(self)
        self._note_usage()
        bare = self._is_bare()
        alone = bare or (self._birth is not None and self._eyes is not None and self._eyes.alone(self._birth.pid))
        self._kill()
        return self._conclude(None, () if bare else await self._files(given, settle=not alone))

    def _is_bare(self) -> bool:
        """Whether nothing is in its workspace. The folder of a tmpfs has a size by the number of its entries."""
        if self._workspace < 0:
            return True
        if self._has_init:
            return os.fstat(self._workspace).st_size == self._bare_bytes
        with os.scandir(self._workspace) as entries:
            return next(entries, None) is None

    async def end(self, *, kill: bool, given: Mapping[str, bytes] | None = None) -> Ended:
        """Kill the tree if asked, else wait until the guest ends by itself; then look at what it left."""
        try:
            if kill:
                self._note_usage()
                self._kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DEATH_S):
                        await asyncio.shield(self._down)
                if not self._down.done():
                    self._kill(everything=True)
            last = await asyncio.shield(self._down)
            if kill and last["status"] is None:
                last = {**last, "status": signal.SIGKILL.value}
            return self._conclude(last, await self._files(given or {}, settle=False))
        finally:
            self.abandon()

    async def _files(self, given: Mapping[str, bytes], *, settle: bool) -> tuple[workspace.Found, ...]:
        if self._workspace < 0:
            return ()
        if settle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEATH_S):
                    await asyncio.shield(self._down)
        if workspace.is_small(self._workspace):
            return tuple(workspace.collect(self._workspace, given, self._limits))
        return tuple(await asyncio.to_thread(workspace.collect, self._workspace, given, self._limits))

    def _conclude(self, last: Reaped | None, files: tuple[workspace.Found, ...]) -> Ended:
        wall_s = self._clock.monotonic() - self._began
        self._stdout.drain()
        self._stderr.drain()
        status = None if last is None else last["status"]
        code = None if status is None else os.waitstatus_to_exitcode(status)
        number = -code if code is not None and code < 0 else None
        reason = self.stopped_by
        if self.group is not None and (last is not None or wall_s > QUICK_S) and self._ask_group(self.group):
            reason = reason or "memory"
        if last is not None:
            self._peak_bytes = max(self._peak_bytes, last["peak_bytes"])
            self._cpu_seen_s = max(self._cpu_seen_s, last["cpu_s"])
            reason = reason or ("killed" if status is None else _REASONS.get(number))
        if reason is not None:
            code = None
        elif number is not None:
            code = 128 + number
        used = Usage(wall_s, max(0.0, self._cpu_seen_s - self._cpu_before_s), self._peak_bytes)
        self.ended = Ended(code, number, reason, self._stdout, self._stderr, used, files)
        return self.ended

    def _note_usage(self) -> None:
        """What the system knows of the guest while it still lives."""
        if self._eyes is not None and not self._down.done():
            now = self._eyes.read(short=self._clock.monotonic() - self._began < WATCH_S)
            self._cpu_seen_s = max(self._cpu_seen_s, self._own_cpu_s() + now.waited_cpu_s)
            self._peak_bytes = max(self._peak_bytes, now.peak_bytes)

    def _own_cpu_s(self) -> float:
        """Of the guest's process by the system's clock of it, which is exact where /proc counts hundredths."""
        try:
            return float(time.clock_gettime((~self._guest << 3) | 2)) if self._guest else 0.0
        except OSError:
            return 0.0

    def abandon(self) -> None:
        """Let go of everything; what still lives is killed. Safe to call twice."""
        if self._closed:
            return
        self._watch.discard(self)
        self._deaf()
        self._kill()
        self._closed = True
        self._wake()
        self._loop.remove_reader(self._leash.fileno())
        self._leash.close()
        if self._senders:
            with contextlib.suppress(OSError):
                self._frames.shutdown(socket.SHUT_RDWR)  # whoever waits on it is woken
        else:
            self._frames.close()
        for stream in (self._stdout, self._stderr):
            stream.close()
        for descriptor in (self._workspace, self._scratch):
            if descriptor >= 0:
                os.close(descriptor)
        if self._eyes is not None:
            self._eyes.close()
        if self.reaped.done():
            self._clear()
        if self.on_close is not None:
            self.on_close()

    def _dead(self, last: Mapping[str, Any]) -> None:
        """The last process is dead."""
        _settle(self._down, last)
        self._frames_over = True
        self._wake()
        self._watch.discard(self)
        if self.on_lost is not None and not self._closed:
            self.on_lost()

    def _reaped(self, last: Reaped) -> None:
        """Nothing of it is left, and its pids may be others'. A keeper's last word may still lie unread, and says more."""
        if not self._has_init and not self._down.done():
            self._hear()
        self._dead(last)
        self._birth = None
        _settle(self.reaped, None)
        if self._closed:
            self._clear()

    def _clear(self) -> None:
        """Once the child is reaped and nobody looks at its files any more, whichever comes last."""
        if not self._place.slow:
            self._place.clear()
        else:  # not a task: what ends tasks at the close must not end this
            self._loop.run_in_executor(None, self._place.clear)

    def _kill(self, *, everything: bool = False) -> None:
        """`everything`: also a keeper that does not answer."""
        if self._birth is None or self._down.done():
            return
        if self._has_init or everything:
            pool.kill(self._birth)
        else:
            with contextlib.suppress(OSError):
                self._leash.send(b"K")


_REASONS = system.by_signal(SIGXFSZ="files", SIGXCPU="cpu")


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)  # noqa: FBT003  the standard library's own
    return ours, theirs


def _stdin(data: bytes) -> int:
    """A descriptor that reads `data`; of a sealed memory file, so that nobody waits for anybody to read."""
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
