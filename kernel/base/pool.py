"""The kernel's end of the zygote (cell/zygote.py): start it, ask it for children, hear when they are gone.

    birth = await zygote.spawn(request, descriptors)     -> pid, pidfd, and a future that is done when the child was reaped

Guarantees
1. The zygote is exec'd, with an environment of its own and no descriptor of the kernel but its end of the control socket.
2. Answers come in the order of requests; `gone` is called once, when the zygote is no more, and every open request fails.

There are no parked children yet: every request forks. Whoever keeps some does it here, since a child is locked and silent before START.
If the kernel dies, the zygote reads the end of its control socket and leaves; each sandbox dies by its own leash.
"""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from .errors import HostError

__all__ = ["Birth", "Refused", "Zygote", "interpreters", "probe_layers", "reachable_by_others"]

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
NO_CHILD = -1
"""In the place of a wait status: it was never born, or nobody is left to say."""


class Refused(Exception):
    """A layer could not be applied: which, and what the machine said."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(reason)
        self.layer = layer


class Birth(NamedTuple):
    pid: int
    pidfd: int
    reaped: "asyncio.Future[int]"
    """The wait status of the child; after that neither its uid nor its place is used by anybody."""


@dataclass(slots=True)
class _Asked:
    answer: "asyncio.Future[tuple[int, int]]"
    reaped: "asyncio.Future[int]"


class Zygote:
    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket, complaints: int) -> None:
        self._process = process
        self._control = control
        self._complaints = complaints
        self._asked: dict[int, _Asked] = {}
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self.alive = True
        self._last_words = ""
        self.python = ""
        self.pid = process.pid

    @classmethod
    async def start(cls, interpreter: str, filters: Mapping[str, bytes]) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints = os.memfd_create("zygote", os.MFD_CLOEXEC)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220  once per kernel, and vfork
                _command(interpreter, "from cell import zygote; zygote.main(int(sys.argv[2]))", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
            )
        ours.setblocking(False)  # noqa: FBT003  the standard library's own
        self = cls(process, ours, complaints)
        encoded = {tier: base64.b64encode(program).decode() for tier, program in filters.items()}
        with contextlib.suppress(BrokenPipeError):
            ours.send(json.dumps({"filters": encoded}).encode())
        try:
            hello = await self._loop.sock_recv(ours, PACKET_BYTES_MAX)
        except ConnectionResetError:
            hello = b""
        if not hello:
            await self.close()
            raise HostError("sandbox.unavailable", f"{interpreter} cannot run the zygote: {self._last_words}")
        self.python = json.loads(hello)["python"]
        self._loop.add_reader(ours.fileno(), self._readable)
        return self

    async def spawn(
        self, request: Mapping[str, Any], descriptors: Sequence[int], on_reaped: Callable[["asyncio.Future[int]"], None]
    ) -> Birth:
        """Raises Refused when the zygote cannot make it. What fails inside the child comes over the leash.

        `on_reaped` is called once, when there is no such child, or no more, whatever becomes of the one who waits here.
        """
        asked = _Asked(self._loop.create_future(), self._loop.create_future())
        asked.reaped.add_done_callback(on_reaped)
        if not self.alive:
            asked.reaped.set_result(NO_CHILD)
            raise Refused("zygote", "the zygote is gone")
        self._last_id += 1
        packet = json.dumps({"spawn": self._last_id, **request}).encode()
        try:
            socket.send_fds(self._control, [packet], descriptors)
        except OSError as error:  # its socket is full of requests, or it is gone
            asked.reaped.set_result(NO_CHILD)
            raise Refused("zygote", f"cannot be asked: {error.strerror}") from error
        self._asked[self._last_id] = asked
        pid, pidfd = await asked.answer
        return Birth(pid, pidfd, asked.reaped)

    async def close(self) -> None:
        """Let it go and wait for it; its children are the business of whoever holds their leashes. Safe to call twice."""
        self._lost()
        if self._complaints < 0:
            return
        try:
            await asyncio.to_thread(self._process.wait, 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._last_words = os.pread(self._complaints, 4096, 0).decode(errors="replace").strip()[-500:]
        os.close(self._complaints)
        self._complaints = -1

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
            case {"spawned": number, "pid": pid}:
                self._settle(self._asked[number].answer, (pid, descriptors[0]))
            case {"failed": number, "layer": layer, "reason": reason}:
                asked = self._asked.pop(number)
                asked.reaped.set_result(NO_CHILD)
                if not asked.answer.done():
                    asked.answer.set_exception(Refused(layer, reason))
            case {"reaped": number, "status": status}:
                reaped = self._asked.pop(number).reaped
                if not reaped.done():
                    reaped.set_result(status)

    @staticmethod
    def _settle(answer: "asyncio.Future[tuple[int, int]]", birth: tuple[int, int]) -> None:
        if answer.done():  # its waiter was cancelled; the leash it dropped ends the child
            os.close(birth[1])
        else:
            answer.set_result(birth)

    def _lost(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(Refused("zygote", "the zygote died"))
            if not asked.reaped.done():
                asked.reaped.set_result(NO_CHILD)
        self._asked.clear()


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
