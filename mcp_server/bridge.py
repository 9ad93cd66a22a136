"""`agent-kernel mcp`: between a host's pipes and the kernel of the state folder, which is joined, or started when there is none.

    host --stdin/stdout--> bridge --unix socket--> kernel (serve.py), shared with all other hosts of the folder

It reads no JSON: every line of the host gets a number, every answer comes back under it (hello.py), so what is not answered is known
without being understood.

    state      means                                          goes on when
    resting    no connection, and nothing to say              the host says something
    seeking    connect; refused: take the start lock, start   connected, or the kernel that was started is ready
    joining    the hello line is sent                         the kernel said its own
    up         lines go both ways                             either side ends

Guarantees
1. A kernel that ends, however, is not noticed: the next one is told the handshake again, and every line without an answer, marked so that
   it is applied once (once.py). A line that has outlived RESENDS_MAX kernels is answered here as a failure that may be repeated.
2. It ends with its host: end of input, the end of the process that started it, an output that nobody reads, SIGTERM, SIGINT, SIGHUP.
3. One start at a time for a folder, by a lock: the others wait for its kernel. The kernel gets nothing of the host: a session of its own,
   the environment of ENVIRONMENT, cwd `/`, no descriptor but its log and the one over which it says that it is ready.
4. Memory is bounded: while a side does not take what waits for it, the other is not read.

Standard library only, no asyncio: a host waits for this import at each start. Not here: anything that knows MCP.
If it dies between any two lines the kernel sees an end of input; if the kernel does, see 1.
"""

import argparse
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NoReturn

from . import hello
from .options import mcp_options, names

__all__ = ["main"]

ENVIRONMENT = (
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)
"""What a kernel inherits, beside LC_*. Keys, tokens and search paths of one host are not the next one's."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READ_BYTES = 256 << 10
WAITING_BYTES_MAX = 4 << 20
UNANSWERED_BYTES_MAX = 64 << 20
RESENDS_MAX = 3
GRACE_S = 2.5
"""After the end of input, for answers that nobody takes; a little more than the kernel allows itself."""
ATTEMPT_S = 0.02
SEEK_S = 60.0
LOG_BYTES_MAX = 1 << 20
START_LOCK, LOG = "start.lock", "kernel.log"
READY = 3
"""The descriptor over which the kernel says that it listens, or why not."""
KEPT_BYTES = 1024
"""Of each end of a line that is too long: a request's id stands in one of them."""


def main(arguments: Sequence[str]) -> int:
    parent = os.getppid()  # now: it may be gone a moment later
    asked = mcp_options().parse_args(arguments)
    try:
        bridge = _bridge(asked)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: bridge.leave())
        bridge.run(parent)
    except hello.Refused as refused:
        sys.stderr.write(f"agent-kernel: {refused}\n")
        return 1


def _bridge(asked: argparse.Namespace) -> "Bridge":
    folder = hello.state_path(asked.state)
    if folder is None:
        raise hello.Refused("state.no_home: There is no home folder. Name a state folder with --state.")
    return Bridge(folder, _hello(asked), _serve_command(asked, folder))


def _hello(asked: argparse.Namespace) -> dict[str, Any]:
    grants = {
        "folders": asked.folder, "hosts": asked.allow_host, "packages": asked.allow_packages, "approve_in_host": asked.approve_in_host,
    }  # fmt: skip
    try:
        cwd = os.getcwd()
    except OSError:  # it was removed
        cwd = "/"
    return {
        "protocol": hello.PROTOCOL, "version": hello.VERSION, "bridge": os.urandom(8).hex(), "cwd": cwd, "agent": asked.agent,
        "grants": grants, "tier": asked.tier, "memory_profiles": asked.memory_profile,
        "toolsets": names(asked.toolsets),
    }  # fmt: skip


def _serve_command(asked: argparse.Namespace, folder: str) -> list[str]:
    """-P: the folder `/`, in which it starts, is nowhere to import from."""
    command = [sys.executable, "-P", "-m", "agent_kernel_mcp", "serve", "--detached", "--state", folder]
    command += ["--idle-exit", str(asked.idle_exit)]
    return command + (["--tier", asked.tier] if asked.tier else [])


class Bridge:
    def __init__(self, folder: str, about: dict[str, Any], command: list[str]) -> None:
        self._folder, self._command = folder, command
        self._about = about
        self._dir = hello.opened(folder)
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        self._acts: dict[int, Callable[[int], None]] = {}
        # from the host
        self._partial = bytearray()
        self._giant_head, self._giant_bytes = b"", 0
        self._last = 0
        self._unanswered: dict[int, bytes] = {}
        self._unanswered_bytes = 0
        self._kept: dict[int, bytes] = {}
        self._replaying: set[int] = set()
        self._sent = 0
        """The last line that some kernel may have seen."""
        self._resends: dict[int, int] = {}
        self._ended = False
        # the kernel
        self._sock: socket.socket | None = None
        self._up = False
        self._to_kernel, self._from_kernel, self._to_host = bytearray(), bytearray(), bytearray()
        self._start_lock = self._ready = -1
        self._ready_said = b""
        self._seeking_since: float | None = None
        self._leave_at: float | None = None
        self._blocking = os.get_blocking(1)

    # --- the loop

    def run(self, parent: int) -> NoReturn:
        os.set_blocking(1, False)
        self._acts = {0: self._host_said, 1: self._host_takes}
        with contextlib.suppress(OSError):  # it is gone already, or there are no pidfds: then the end of input tells
            self._watch(watched := os.pidfd_open(parent), select.POLLIN)
            self._acts[watched] = lambda _: self.leave()
        if os.getppid() != parent:
            self.leave()
        self._seeking_since = monotonic()  # a host asks at once, so its kernel may as well come up
        while True:
            self._seek()
            self._look()
            for fd, event in self._poll.poll(self._pause_ms()):
                if fd in self._acts:
                    self._acts[fd](event)

    def _look(self) -> None:
        """Watch for what can be used. A descriptor that cannot is not watched at all: its hang-up would be told without end."""
        room = len(self._to_kernel) < WAITING_BYTES_MAX and self._unanswered_bytes < UNANSWERED_BYTES_MAX
        self._watch(0, select.POLLIN if room and not self._ended else 0)
        if self._to_host or not self._ended:
            self._watch(1, select.POLLOUT if self._to_host else select.POLLERR)
        if self._sock is not None:
            wanted = select.POLLIN if len(self._to_host) < WAITING_BYTES_MAX else 0
            self._watch(self._sock.fileno(), wanted | (select.POLLOUT if self._to_kernel else 0))
        # What was begun is seen through: whoever asks for nothing hears at least that there is a kernel, or why not.
        if self._ended and not self._to_host and not self._unanswered and self._seeking_since is None:
            self.leave()

    def _watch(self, fd: int, events: int) -> None:
        if self._watched.get(fd, 0) == events:
            return
        if events:
            self._poll.register(fd, events)
            self._watched[fd] = events
        else:
            self._poll.unregister(fd)
            del self._watched[fd]

    def _pause_ms(self) -> float | None:
        if self._leave_at is not None and monotonic() >= self._leave_at:
            self.leave()
        if self._seeking_since is not None and self._sock is None and self._ready < 0:
            return ATTEMPT_S * 1000
        return None if self._leave_at is None else max(1.0, (self._leave_at - monotonic()) * 1000)

    def leave(self) -> NoReturn:
        """At once: what the kernel still does for us it gives up when the connection ends."""
        with contextlib.suppress(OSError):
            os.set_blocking(1, self._blocking)
        os._exit(0)

    # --- the host's side

    def _host_said(self, _: int) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end_of_input()
            return
        start = 0
        while (newline := data.find(b"\n", start)) >= 0:
            self._take(data[start:newline])
            self._line()
            start = newline + 1
        self._take(data[start:])
        self._flush()

    def _take(self, part: bytes) -> None:
        self._partial += part
        if len(self._partial) > hello.LINE_BYTES_MAX:
            if not self._giant_bytes:
                self._giant_head = bytes(self._partial[:KEPT_BYTES])
            self._giant_bytes += len(self._partial) - KEPT_BYTES
            del self._partial[:-KEPT_BYTES]

    def _line(self) -> None:
        line, mark = bytes(self._partial), b""
        self._partial.clear()
        if self._giant_bytes:
            mark, line = b"~%d" % (self._giant_bytes + len(line)), self._giant_head + line
            self._giant_bytes = 0
        elif not line.strip():
            return
        self._last += 1
        self._unanswered[self._last] = line
        self._unanswered_bytes += len(line)
        if self._up:
            self._send(self._last, mark, line)
        elif self._sock is None and self._seeking_since is None:
            self._seeking_since = monotonic()

    def _send(self, number: int, mark: bytes, line: bytes) -> None:
        self._to_kernel += b"%d%b %b\n" % (number, mark, line)
        self._sent = max(self._sent, number)

    def _end_of_input(self) -> None:
        if self._partial.strip():
            self._line()  # a last line without its newline
        self._ended = True
        if self._up:
            self._flush()

    def _host_takes(self, event: int) -> None:
        if event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            self.leave()
        try:
            while self._to_host:
                written = os.write(1, memoryview(self._to_host)[:READ_BYTES])
                del self._to_host[:written]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self.leave()

    # --- the kernel's side

    def _kernel_said(self, event: int) -> None:
        assert self._sock is not None
        if event & select.POLLOUT:
            self._flush()
        if self._sock is None or not event & ~select.POLLOUT:
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._from_kernel += data
        if b"\n" not in data:
            return
        *lines, rest = self._from_kernel.split(b"\n")
        self._from_kernel = bytearray(rest)
        for line in lines:
            if self._up:
                self._answer(line)
            elif self._sock is not None:
                self._welcome(bytes(line))
        if self._to_host:
            self._host_takes(0)

    def _answer(self, line: bytearray) -> None:
        number, mark, rest = hello.take_number(bytes(line))
        if number == 0:
            self._to_host += rest + b"\n"
            return
        if number in self._replaying:
            self._replaying.discard(number)
            return
        asked = self._unanswered.pop(number, None)
        if asked is None:
            return
        self._unanswered_bytes -= len(asked)
        self._resends.pop(number, None)
        if mark == b"=":
            self._kept[number] = asked
        if rest:
            self._to_host += rest + b"\n"

    def _flush(self) -> None:
        if self._sock is None:
            return
        try:
            while self._to_kernel:
                sent = self._sock.send(memoryview(self._to_kernel)[:READ_BYTES])
                del self._to_kernel[:sent]
            if self._ended and self._up:
                self._sock.shutdown(socket.SHUT_WR)
                self._leave_at = monotonic() + GRACE_S
        except BlockingIOError:
            pass
        except OSError:
            self._lost()

    def _lost(self) -> None:
        """The connection is gone. What has no answer goes to the next kernel; without such there is nobody to be sought."""
        assert self._sock is not None
        fd = self._sock.fileno()
        self._watch(fd, 0)
        del self._acts[fd]
        self._sock.close()
        self._sock, was_up, self._up = None, self._up, False
        self._to_kernel.clear()
        self._from_kernel.clear()
        if self._ended and was_up:
            self._leave_at = monotonic() + GRACE_S
            self._unanswered.clear()  # it had its time for them
        elif self._unanswered or self._seeking_since is not None:
            self._seeking_since = monotonic() if was_up else self._seeking_since

    def _welcome(self, line: bytes) -> None:
        """The kernel's first line."""
        said = _parsed(line)
        if "error" in said:
            raise hello.Refused(str(said["error"]))
        if "ok" not in said:  # it leaves, for a newer one to come
            self._lost()
            return
        self._up, self._seeking_since = True, None
        self._replaying = set(self._kept)
        for number, handshake in self._kept.items():
            self._send(number, b"=", handshake)
        for number, waiting in list(self._unanswered.items()):
            if number > self._sent:
                self._send(number, b"", waiting)
                continue
            self._resends[number] = self._resends.get(number, 0) + 1
            if self._resends[number] > RESENDS_MAX:
                self._give_up(number, waiting)
            else:
                self._send(number, b"+", waiting)
        self._flush()

    def _give_up(self, number: int, line: bytes) -> None:
        del self._unanswered[number]
        self._unanswered_bytes -= len(line)
        request = _parsed(line)
        if "id" in request and "method" in request:
            text = f"kernel.lost: The kernel ended {RESENDS_MAX + 1} times while it had this call. {self._folder}/{LOG} says why. It may be tried again."
            error = {"code": "kernel.lost", "message": text, "fault": "kernel", "retryable": True}
            self._to_host += _dumped(
                {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32603, "message": text, "data": error}}
            )

    # --- finding a kernel, or starting one

    def _seek(self) -> None:
        if self._seeking_since is None or self._sock is not None or self._ready >= 0:
            return
        if monotonic() > self._seeking_since + SEEK_S:
            raise hello.Refused(
                f"kernel.not_running: No kernel came up on {self._folder} within {SEEK_S:g} s. See {self._folder}/{LOG}."
            )
        if self._join():
            return
        lock = os.open(START_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._dir)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return
        self._start_lock = lock
        if self._join():  # it came up before we had the lock
            self._unlock()
            return
        self._start()

    def _join(self) -> bool:
        sock = hello.connected(self._folder, self._dir)
        if sock is None:
            return False
        sock.setblocking(False)  # noqa: FBT003
        self._sock = sock
        self._acts[sock.fileno()] = self._kernel_said
        self._to_kernel += _dumped(self._about)
        self._flush()
        return True

    def _unlock(self) -> None:
        os.close(self._start_lock)
        self._start_lock = -1

    def _start(self) -> None:
        self._ready, theirs = os.pipe2(os.O_CLOEXEC)
        log = self._opened_log()
        child = os.fork()
        if child == 0:
            _become_kernel(self._command, theirs, log)
        os.close(theirs)
        os.close(log)
        os.waitpid(child, 0)
        self._ready_said = b""
        self._acts[self._ready] = self._start_said
        self._watch(self._ready, select.POLLIN)

    def _opened_log(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            if os.stat(LOG, dir_fd=self._dir, follow_symlinks=False).st_size > LOG_BYTES_MAX:
                os.rename(LOG, f"{LOG}.1", src_dir_fd=self._dir, dst_dir_fd=self._dir)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(LOG, flags, 0o600, dir_fd=self._dir)

    def _start_said(self, _: int) -> None:
        data = os.read(self._ready, READ_BYTES)
        self._ready_said += data
        if data and b"\n" not in self._ready_said:
            return
        self._watch(self._ready, 0)
        del self._acts[self._ready]
        os.close(self._ready)
        self._ready = -1
        said = (
            _parsed(self._ready_said)
            if self._ready_said
            else {"error": f"kernel.fault: The kernel ended before it was ready. See {self._folder}/{LOG}."}
        )
        self._unlock()
        if "error" in said:
            raise hello.Refused(str(said["error"]))


def _become_kernel(command: list[str], ready: int, log: int) -> NoReturn:
    """In the child: let go of everything that is the host's, and become the kernel. Its parent is init, or whoever adopts orphans."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o077)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        ready, log = (
            fcntl.fcntl(ready, fcntl.F_DUPFD, 10),
            fcntl.fcntl(log, fcntl.F_DUPFD, 10),
        )  # out of the way of 0 to 3
        null = os.open(os.devnull, os.O_RDWR)
        for source, target in ((null, 0), (log, 1), (log, 2), (ready, READY)):
            os.dup2(source, target)
        os.closerange(READY + 1, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1 << 20)
        environment = {
            name: value for name, value in os.environ.items() if name in ENVIRONMENT or name.startswith("LC_")
        }
        os.execve(command[0], command, {**environment, "PATH": PATH})  # noqa: S606  (there is no shell between)
    except OSError as error:
        os.write(
            READY,
            _dumped(
                {
                    "error": f"kernel.start: {command[0]} cannot be run: {os.strerror(error.errno or errno.EIO)}. Restart the host after the installation is whole."
                }
            ),
        )
    finally:
        os._exit(1)


def _parsed(line: bytes) -> dict[str, Any]:
    import json

    try:
        said = json.loads(line)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"error": f"kernel.protocol: {line[:200]!r} is no answer of a kernel."}


def _dumped(value: Any) -> bytes:
    import json

    return json.dumps(value).encode() + b"\n"
