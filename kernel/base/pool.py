"""The kernel's end of the zygote (cell/zygote.py): start it, ask it for children, hear when they are gone.

    birth = await zygote.spawn(request, descriptors, on_reaped)     -> pids, and the pidfd of the one whose end is the sandbox's

Guarantees
1. The zygote is exec'd, with an environment of its own and no descriptor of the kernel but its end of the control socket and of `life`.
2. `on_reaped` is called once for each request, when nothing of its sandbox is left or ever was; nobody uses its uid or place after that.
3. When the zygote dies, every sandbox of it is ended, and is reaped by whoever adopts it, which may be us: as pid 1 of a container, or
   as a subreaper. What waited for a birth is refused.

Who keeps children before they are asked for is parking.py. If the kernel dies, `life` ends, and with it every init (cell/inits.py); the
zygote reads the end of its control socket and leaves.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from .errors import HostError

__all__ = [
    "NEVER_SEEN",
    "Birth",
    "Reaped",
    "Refused",
    "Zygote",
    "interpreters",
    "kill",
    "probe_layers",
    "reachable_by_others",
]

PACKET_BYTES_MAX = 1 << 16
CELL = Path(__file__).parent.parent / "cell"
BOOT = """\
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("cell", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["cell"] = importlib.util.module_from_spec(spec)
"""
"""The folder becomes the package `cell` without being on sys.path, where a guest would find its neighbours."""
FLAGS = ("-s", "-S", "-P", "-B")
"""No user site, no site, nothing of the current folder, no bytecode. Not -I, which would ignore PYTHONHASHSEED."""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
"""All of it. The seed, because the order of a set must be the same when a program is run again by another zygote."""
PYTHON_MIN = (3, 11)
ROTATE_AFTER = 20_000
"""Children of one zygote. They share its layout of memory and its stack canaries, which no number of guests should have to guess at."""
CLOSE_S = 5.0
ADOPTION_S, ADOPTION_TRIES = 0.02, 500
"""How often, and how many times, we look for what has become our child."""

Reaped = Mapping[str, Any]
"""What the zygote knows of a child that is gone: {"status": of the guest | None, "cpu_s", "peak_bytes"}."""
NEVER_SEEN: Reaped = {"status": None, "cpu_s": 0.0, "peak_bytes": 0}


class Refused(Exception):
    """A layer could not be applied: which, and what the machine said."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(reason)
        self.layer = layer


class Birth(NamedTuple):
    pid: int
    """The init (tier full) or the keeper."""
    guest: int
    """0 in tier confined: a child of the keeper."""
    pidfd: int
    """Of `pid`."""


@dataclass(slots=True)
class _Asked:
    answer: "asyncio.Future[Birth]"
    on_reaped: Callable[[Reaped], None]
    on_orphaned: Callable[[], None]
    birth: Birth | None = None


class Zygote:
    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket, life: int, complaints: int) -> None:
        self._process = process
        self._control = control
        self._life = life
        self._complaints = complaints
        self._pidfd = os.pidfd_open(process.pid)
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self._last_words = ""
        self._emptied: asyncio.Future[None] | None = None
        self.python = ""
        self.pid = process.pid

    @classmethod
    async def start(cls, interpreter: str, hello: Mapping[str, Any], filters: Mapping[str, bytes]) -> Self:
        """`hello`: what all its children have in common. Raises HostError with the layer that this machine refuses."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life_end, life = os.pipe2(os.O_CLOEXEC)
        complaints = os.memfd_create("zygote", os.MFD_CLOEXEC)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220  once per kernel, and vfork
                _command(interpreter, "from cell import zygote; zygote.main(int(sys.argv[2]))", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=life_end,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
            )
        os.close(life_end)
        ours.setblocking(False)  # noqa: FBT003  the standard library's own
        self = cls(process, ours, life, complaints)
        self._loop.add_reader(self._pidfd, self._lost)
        encoded = {tier: base64.b64encode(program).decode() for tier, program in filters.items()}
        with contextlib.suppress(BrokenPipeError):
            ours.send(json.dumps({**hello, "filters": encoded}).encode())
        try:
            said = await self._loop.sock_recv(ours, PACKET_BYTES_MAX)
        except (ConnectionResetError, OSError):
            said = b""
        answer = json.loads(said) if said else {}
        if "python" not in answer:
            await self.close()
            why = answer.get("reason") or self._last_words
            raise HostError("sandbox.unavailable", f"{interpreter} cannot run the zygote: {why}")
        self.python = answer["python"]
        self._loop.add_reader(ours.fileno(), self._readable)
        return self

    @property
    def worn(self) -> bool:
        """It has made so many children that another should follow it."""
        return self._last_id >= ROTATE_AFTER

    @property
    def children(self) -> int:
        return len(self._asked)

    async def spawn(
        self,
        request: Mapping[str, Any],
        descriptors: Sequence[int],
        on_reaped: Callable[[Reaped], None],
        on_orphaned: Callable[[], None],
    ) -> Birth:
        """Raises Refused when the zygote cannot make it. What fails inside the child comes over the leash.

        `on_reaped` is called also when there was never a child, `on_orphaned` when the zygote is gone before its child: a keeper hears of it by nobody else. A waiter that is cancelled has its child killed.
        """
        if not self.alive:
            on_reaped(NEVER_SEEN)
            raise Refused("zygote", "the zygote is gone")
        self._last_id += 1
        packet = json.dumps({"spawn": self._last_id, **request}).encode()
        try:
            socket.send_fds(self._control, [packet], descriptors)
        except OSError as error:  # its socket is full of requests, or it is gone
            on_reaped(NEVER_SEEN)
            raise Refused("zygote", f"cannot be asked: {error.strerror}") from error
        asked = self._asked[self._last_id] = _Asked(self._loop.create_future(), on_reaped, on_orphaned)
        return await asked.answer

    async def close(self) -> None:
        """End it with all its children, and wait until they are gone; for what others have to reap, CLOSE_S. Safe to call twice."""
        self._lost()
        complaints, self._complaints = self._complaints, -1
        if complaints < 0:
            return
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._last_words = os.pread(complaints, 1 << 16, 0).decode(errors="replace").strip()[-500:]
        os.close(complaints)
        if self._asked:
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=CLOSE_S)

    def _readable(self) -> None:
        while self.alive:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES_MAX, 1)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self._lost()
                return
            self._hear(json.loads(packet), descriptors)

    def _hear(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        match message:
            case {"reaped": number}:
                asked = self._asked.pop(number)
                assert asked.birth is not None
                os.close(asked.birth.pidfd)
                asked.on_reaped(message)
            case {"spawned": number, "pid": pid, "guest": guest}:
                asked = self._asked[number]
                asked.birth = Birth(pid, guest, descriptors[0])
                if asked.answer.done():  # its waiter was cancelled, and has dropped the leash
                    if guest:
                        kill(asked.birth)
                else:
                    asked.answer.set_result(asked.birth)
            case {"failed": number, "layer": layer, "reason": reason}:
                asked = self._asked.pop(number)
                asked.on_reaped(NEVER_SEEN)
                if not asked.answer.done():
                    asked.answer.set_exception(Refused(layer, reason))

    def _lost(self) -> None:
        """It is gone, or let go, and its children have to go too."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        os.close(self._life)
        for number, asked in list(self._asked.items()):
            if not asked.answer.done():
                asked.answer.set_exception(Refused("zygote", "the zygote died"))
                asked.answer.exception()  # looked at: its waiter may have been cancelled
            if asked.birth is None:
                del self._asked[number]
                asked.on_reaped(NEVER_SEEN)
            else:
                if asked.birth.guest:
                    kill(asked.birth)
                asked.on_orphaned()
                self._loop.add_reader(asked.birth.pidfd, self._orphan_gone, number)
        born = [asked.birth for asked in self._asked.values() if asked.birth is not None]
        self._adopt({pid for birth in born for pid in (birth.pid, birth.guest) if pid}, ADOPTION_TRIES)

    def _adopt(self, orphans: set[int], tries: int) -> None:
        """Reap those that become our children when the zygote is wholly gone. A pid namespace ends only when all in it are reaped."""
        left = {pid for pid in orphans if not _reaped(pid)}
        if left and tries:
            self._loop.call_later(ADOPTION_S, self._adopt, left, tries - 1)

    def _orphan_gone(self, number: int) -> None:
        asked = self._asked.pop(number)
        assert asked.birth is not None
        self._loop.remove_reader(asked.birth.pidfd)
        os.close(asked.birth.pidfd)
        asked.on_reaped(NEVER_SEEN)
        if not self._asked and self._emptied is not None:
            self._emptied.set_result(None)


def _reaped(pid: int) -> bool:
    """Whether nothing is left of it, by us or by somebody else."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()


def kill(birth: Birth) -> None:
    """In tier full this ends the sandbox. A keeper that is killed leaves its tree behind: it is told over its leash, as long as it listens."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(birth.pidfd, signal.SIGKILL)


def probe_layers(interpreter: str) -> list[tuple[str, bool, str]]:
    """What cell/probe.py finds on this host; empty when it cannot even run."""
    command = _command(interpreter, "from cell import probe; probe.main()")
    done = subprocess.run(command, check=False, capture_output=True, cwd="/", env=ENVIRONMENT)
    return [] if done.returncode else [(name, works, detail) for name, works, detail in json.loads(done.stdout)]


def _command(interpreter: str, then: str, *arguments: str) -> list[str]:
    return [interpreter, *FLAGS, "-c", BOOT + then, str(CELL), *arguments]


def interpreters() -> list[str]:
    """Candidates for running the zygote, best first: our own base interpreter, then the system's."""
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    found = [own]
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        real = os.path.realpath(path)
        if real not in found and os.access(real, os.X_OK) and _new_enough(real):
            found.append(real)
    return found


def reachable_by_others(path: str) -> bool:
    """Whether a uid of no special rights can pass through every folder down to `path`."""
    place = Path(path)
    return all(part.stat().st_mode & 0o001 for part in (place, *place.parents))


def _new_enough(interpreter: str) -> bool:
    question = f"import sys; sys.exit(sys.version_info < {PYTHON_MIN})"
    return subprocess.run([interpreter, "-I", "-S", "-c", question], check=False, env={}).returncode == 0
