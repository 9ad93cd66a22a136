"""The keeper of one sandbox in tier confined, where no pid namespace holds its processes together.

It is the subreaper of the guest's tree and stands outside the guest's Landlock domain, so that it sees and kills all of it and cannot be
reached. It forks the guest, waits, kills, reaps, and tells the kernel over the leash (zygote.py has its messages).

Guarantees
1. When the kernel says so, or drops the leash, everything dies; as root that is everything of the sandbox's own uid.
2. `ended` is sent after the last process of the sandbox was reaped.
3. What the guest's filter hands over (permits.py) is answered here, and nothing else that the guest could say is listened to.

If the keeper dies: its children get to the zygote's parent; as root the next sandbox with this uid kills what is left before it begins.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import time
from typing import Any, NoReturn

from . import guest, layers, permits

__all__ = ["Keeper", "report"]


class Keeper:
    """Forks the guest, then stays. Never returns to the zygote's code."""

    def __init__(self, request: dict[str, Any], descriptors: list[int], program: bytes) -> None:
        self.request = request
        self.leash = socket.socket(fileno=descriptors[0])
        self.guest_descriptors = [*descriptors[2:], descriptors[1]]
        """Become 0, 1, 2 and 3 of the guest."""
        self.program = program
        self.applied: list[str] = []
        self.place = guest.Place(request["workspace"], request["tmp"], request["skill"])
        self.wake, self.wake_end = socket.socketpair()
        self.permits, self.permits_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """How the listener of a filter that hands calls over comes from the guest to us."""
        self.workspace = -1

    def run(self) -> NoReturn:
        try:
            self._prepare()
            pid = os.fork()
            if pid == 0:
                self._be_guest()
            self._watch(pid)
        except BaseException as error:  # noqa: BLE001  whatever it was, no second zygote may come out of here
            report(self.leash.fileno(), error)
        os._exit(126)

    def _prepare(self) -> None:
        os.setsid()
        for end in (self.wake, self.wake_end):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_end.fileno(), warn_on_full_buffer=False)
        if self.request["own_uid"]:
            layers.become(self.request["uid"], self.request["gid"])
            self._kill_all_of_uid()  # what an earlier kernel that died may have left
            self.applied.append("own uid")
        layers.visible()
        layers.subreaper()
        os.umask(0o077)
        self.workspace = os.open(self.place.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _lock(self) -> None:
        layers.no_new_privileges()
        layers.limit(**self.request["limits"])
        self.applied += ["no_new_privs", "rlimits"]
        self.applied += layers.confine_files(layers.opened_rules(self._rules()), tcp_denied=True)
        kept = (self.leash.fileno(), self.permits_end.fileno(), self.workspace)
        layers.close_all_but((0, 1, 2, *kept, *self.guest_descriptors))
        shared = self.request["filter"] == "shared"
        listener = layers.filter_calls(self.program, listen=shared)
        if shared:
            socket.send_fds(self.permits_end, [b"L"], [listener])
            os.close(listener)
        self.applied.append("seccomp allow-list")

    def _rules(self) -> list[tuple[str, int]]:
        rules = [(path, layers.READ_RUN) for path in (*guest.RUNTIME, *guest.prefixes())]
        rules += [(path, layers.DEVICE) for path in guest.DEVICES]
        rules += [(self.place.workspace, layers.WORK), (self.place.tmp, layers.WORK)]
        rules += [(self.place.skill, layers.READ_RUN)] if self.place.skill else []
        rules += [(path, layers.READ_RUN) for path in self.request["folders"] if os.path.exists(path)]
        return [*rules, *((path, layers.READ) for path in guest.ETC)]

    def _be_guest(self) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._lock()
            layers.hold_descriptors(self.guest_descriptors)
            layers.close_all_but((0, 1, 2, guest.FRAMES, self.leash.fileno(), self.workspace))
            for end in (self.wake, self.wake_end, self.permits, self.permits_end):
                end.detach()  # closed just now; its number may be another's soon
            guest.dress(self.place)
            channel = guest.begin(self.place, rehearse=self.request["rehearse"])
            _tell(self.leash, {"up": self.applied}, self.workspace)
            os.close(self.workspace)
            self.leash.close()
        except BaseException as error:  # noqa: BLE001
            report(self.leash.fileno(), error)
            os._exit(126)
        guest.main(self.place, channel)

    # --- after the fork: wait, kill, reap, report

    def _watch(self, pid: int) -> NoReturn:
        ours = (self.leash, self.wake, self.wake_end, self.permits)
        layers.close_all_but((0, 1, 2, *(end.fileno() for end in ours)))
        self.permits_end.detach()
        status: int | None = None
        try:
            status = self._wait(pid)
        finally:
            last = self._bury(pid)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = {
            "ended": last if status is None else status,
            "cpu_s": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss << 10,
        }
        with contextlib.suppress(OSError):
            _tell(self.leash, ended)
        os._exit(0)

    def _wait(self, pid: int) -> int | None:
        """Until the guest ends (its status), or the kernel says so or is gone (None)."""
        poll = select.poll()
        poll.register(self.leash, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        status: int | None = None
        executor = self._executor()
        if executor is not None:
            poll.register(executor.listener, select.POLLIN)
        while status is None:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.leash.fileno() in ready:
                with contextlib.suppress(OSError):
                    self.leash.recv(16)
                return None
            if executor is not None and executor.listener in ready:
                executor.answer()
            with contextlib.suppress(BlockingIOError):
                self.wake.recv(4096)
            status = _reap(pid)
        return status

    def _executor(self) -> permits.Permits | None:
        """What the guest's filter hands over is done here; None when it hands nothing over, or died before it had one."""
        if self.request["filter"] != "shared":
            return None
        _, listeners, _, _ = socket.recv_fds(self.permits, 1, 1)
        return permits.Permits(listeners[0], (self.place.workspace, self.place.tmp)) if listeners else None

    def _bury(self, pid: int) -> int | None:
        """Until nobody is left; the wait status of `pid`. The list that the system gives of a process's children may lack some while others
        end, so whoever is still ours when it showed nobody is looked for again.
        """
        last: int | None = None
        self._kill_all()
        while True:
            status = _reap(pid)
            last = last if status is None else status
            if not _has_children():
                return last
            self._kill_all()
            time.sleep(0.0005)

    def _kill_all(self) -> None:
        # The dead are not reaped in here: as zombies they hold their places under RLIMIT_NPROC, so a fork bomb runs dry.
        if self.request["own_uid"]:
            self._kill_all_of_uid()
        while alive := [pid for pid in _descendants(os.getpid()) if _lives(pid)]:
            for pid in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if self.request["own_uid"]:
                self._kill_all_of_uid()
            time.sleep(0.0005)

    def _kill_all_of_uid(self) -> None:
        assert os.getuid() == self.request["uid"] != 0, "a sweep as root would be everybody's"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)


def _reap(wanted: int) -> int | None:
    """Reap what there is; the wait status of `wanted` if it was among it."""
    status: int | None = None
    while True:
        try:
            pid, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == wanted:
            status = found


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", encoding="ascii") as children:
                    waiting += [int(word) for word in children.read().split()]
        found.append(parent)
    return found[1:]


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def report(leash: int, error: BaseException) -> None:
    """Why a child that has run nothing of the guest will not."""
    layer = error.layer if isinstance(error, layers.LayerError) else "init"
    reason = str(error) if isinstance(error, layers.LayerError) else f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        _tell(socket.socket(fileno=leash), {"failed": layer, "reason": reason})


def _tell(channel: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
