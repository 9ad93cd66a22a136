"""The zygote: one small single-threaded process, exec'd by the kernel, that forks a locked child for each sandbox.

    kernel ──control, descriptor 3──> zygote ──clone──> init `I` ──fork──> guest `G`
       └──leash───────────────────────────────────────────┘ │
       └──frames, stdin, stdout, stderr──────────────────────┴──────────────┘

Control (SEQPACKET, one JSON object a packet, descriptors beside it):
    kernel  {"filters": {tier: base64 of BPF}}                      once, first
    zygote  {"python": "3.11.7", "prefix": ..., "executable": ...}
    kernel  {"spawn": id, "tier": ..., ...}  + leash frames stdin stdout stderr
    zygote  {"spawned": id, "pid": ...}      + pidfd                or {"failed": id, "layer": ..., "reason": ...}
    zygote  {"reaped": id, "status": wait status}                   after that nothing of the sandbox is left
Leash (SEQPACKET, between the kernel and `I`):
    I       {"up": [layers]} + descriptor of the workspace          the guest exists and waits for its START frame
    I       {"failed": layer, "reason": ...}                        nothing of the guest has run
    I       {"ended": wait status of G | null, "cpu_s": ..., "peak_bytes": ...}    all processes of the sandbox are dead and reaped
    kernel  b"K", or end of file                                    kill everything

`I` is small and stays: in tier full it is pid 1 of the guest's pid namespace, locked like the guest; in tier confined it is the
subreaper of the guest's tree and stands outside the guest's Landlock domain, so that it can see and kill and cannot be reached.

Guarantees
1. The child is fully locked before it waits for START: a pool of parked children needs nothing but a list of them.
2. When the kernel dies, or drops a leash, the sandbox dies: `I` reads the end of file; in tier full PDEATHSIG and the pid namespace
   do it also without `I`.
3. Every descriptor of a request is closed in the zygote when the request is answered: no child holds another's leash.
4. `ended` is sent after the last process of the sandbox was reaped, `reaped` after `I` itself was.

The zygote imports the standard library only, before any guest exists, and never looks at a frame, a file or a line of a guest.
"""

import base64
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from . import guest, layers, permits

__all__ = ["main"]

PACKET_BYTES_MAX = 1 << 20
REQUEST_DESCRIPTORS = 5
GUEST_FRAMES = 3

RUNTIME = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
"""What a program needs to start, read-only, besides the interpreter's own prefix."""
ETC = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/ssl/openssl.cnf", "/etc/ssl/certs")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/dev/full")
SYNTHETIC_ETC = (
    ("passwd", "guest:x:1000:1000:guest:/workspace:/bin/bash\n"),
    ("group", "guest:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
)

Request = dict[str, Any]


def main(control_number: int) -> None:
    control = socket.socket(fileno=control_number)
    if control.fileno() != GUEST_FRAMES:
        os.dup2(control.detach(), GUEST_FRAMES, inheritable=False)
        control = socket.socket(fileno=GUEST_FRAMES)
    layers.close_all_but((0, 1, 2, GUEST_FRAMES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the kernel's to interpret
    if os.geteuid() == 0:
        os.setgroups([])
    hello = json.loads(control.recv(PACKET_BYTES_MAX))
    filters = {tier: base64.b64decode(text) for tier, text in hello["filters"].items()}
    guest.warm_up()
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page that holds an object's header
    gc.disable()
    version = ".".join(map(str, sys.version_info[:3]))
    _tell(control, {"python": version, "prefix": sys.base_prefix, "executable": sys.executable})
    Zygote(control, filters).serve()


class Zygote:
    def __init__(self, control: socket.socket, filters: dict[str, bytes]) -> None:
        self._control = control
        self._filters = filters
        self._poll = select.poll()
        self._children: dict[int, tuple[int, int]] = {}
        """pidfd -> (sandbox id, pid)"""

    def serve(self) -> None:
        self._poll.register(self._control, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._answer():
                    return  # the kernel is gone; each `I` reads it from its own leash

    def _answer(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES_MAX, REQUEST_DESCRIPTORS)
        if not packet:
            return False
        request = json.loads(packet)
        try:
            pid = self._spawn(request, descriptors)
            pidfd = os.pidfd_open(pid)
        except layers.LayerError as error:
            _tell(self._control, {"failed": request["spawn"], "layer": error.layer, "reason": str(error)})
        else:
            self._children[pidfd] = (request["spawn"], pid)
            self._poll.register(pidfd, select.POLLIN)
            _tell(self._control, {"spawned": request["spawn"], "pid": pid}, pidfd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, request: Request, descriptors: list[int]) -> int:
        full = request["tier"] == "full"
        go, tell_go = os.pipe2(os.O_CLOEXEC)
        try:
            pid = layers.clone(layers.FULL_NAMESPACES if full else 0)
            if pid == 0:
                os.close(tell_go)
                Init(request, descriptors, go, self._filters[request["filter"]]).run()
            try:
                if full:
                    layers.map_ids(pid, request["uid"], request["gid"])
                os.write(tell_go, b"g")
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        finally:
            os.close(go)
            with contextlib.suppress(OSError):
                os.close(tell_go)
        return pid

    def _reap(self, pidfd: int) -> None:
        sandbox, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        _tell(self._control, {"reaped": sandbox, "status": status})


class Init:
    """The child that stays: builds the box, forks the guest, reaps, reports. Never returns to the zygote's code."""

    def __init__(self, request: Request, descriptors: list[int], go: int, program: bytes) -> None:
        self.request = request
        self.full = request["tier"] == "full"
        self.leash = socket.socket(fileno=descriptors[0])
        self.guest_descriptors = [*descriptors[2:], descriptors[1]]
        """Become 0, 1, 2 and 3 of the guest."""
        self.go = go
        self.program = program
        self.applied: list[str] = []
        self.place = guest.Place.of(request)
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
            self._report(error)
        os._exit(126)

    def _report(self, error: BaseException) -> None:
        layer = error.layer if isinstance(error, layers.LayerError) else "init"
        reason = str(error) if isinstance(error, layers.LayerError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            _tell(self.leash, {"failed": layer, "reason": reason})

    def _prepare(self) -> None:
        """Everything up to the fork of the guest; in tier full that includes the lock, so pid 1 is locked too."""
        if os.read(self.go, 1) != b"g":
            raise layers.LayerError("zygote", "ended before the sandbox began")
        os.setsid()
        layers.first_to_go()
        os.umask(0o022)
        for end in (self.wake, self.wake_end):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_end.fileno(), warn_on_full_buffer=False)
        if self.full:
            self._enter_own_machine()
        else:
            self._become_keeper()
        os.umask(0o077)
        self.workspace = os.open(self.place.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self.full:
            self._lock()

    def _enter_own_machine(self) -> None:
        trees = [(path, path) for path in (*RUNTIME, *ETC, *_prefixes())]
        if self.request["skill"]:
            trees.append((self.request["skill"], "/skill"))
        trees += [(path, path) for path in self.request["folders"]]
        binds = layers.Binds.open(trees, DEVICES)
        layers.become(layers.INSIDE_ID, layers.INSIDE_ID)
        layers.visible()
        layers.on_parent_death()
        socket.sethostname("sandbox")
        layers.loopback_up()
        layers.new_root(binds, layers.View(self.request["bytes_max"], self.request["inodes_max"], SYNTHETIC_ETC))
        layers.drop_capabilities()
        self.applied += [f"{name} namespace" for name in layers.NAMESPACES]
        self.applied += ["private root", "no capabilities"]

    def _become_keeper(self) -> None:
        """Outside the guest's domain, with its uid. As root that uid is this sandbox's alone, so a sweep by uid is exact."""
        if self.request["own_uid"]:
            layers.become(self.request["uid"], self.request["gid"])
            self._kill_all_of_uid()  # what an earlier kernel that died may have left
            self.applied.append("own uid")
        layers.visible()
        layers.subreaper()

    def _lock(self) -> None:
        layers.no_new_privileges()
        layers.limit(**self.request["limits"])
        self.applied += ["no_new_privs", "rlimits"]
        self.applied += layers.confine_files(self._rules(), tcp_denied=not self.full)
        kept = (
            self.leash.fileno(),
            self.wake.fileno(),
            self.wake_end.fileno(),
            self.permits_end.fileno(),
            self.workspace,
        )
        layers.close_all_but((0, 1, 2, *kept, *self.guest_descriptors))
        shared = self.request["filter"] == "shared"
        listener = layers.filter_calls(self.program, listen=shared)
        if shared:
            socket.send_fds(self.permits_end, [b"L"], [listener])
            os.close(listener)
        self.applied.append("seccomp allow-list")

    def _rules(self) -> list[tuple[str, int]]:
        rules = [(path, layers.READ_RUN) for path in (*RUNTIME, *_prefixes())]
        rules += [(path, layers.DEVICE) for path in DEVICES]
        rules += [(self.place.workspace, layers.WORK), (self.place.tmp, layers.WORK)]
        rules += [(self.place.skill, layers.READ_RUN)] if self.place.skill else []
        rules += [(path, layers.READ_RUN) for path in self.request["folders"]]
        if self.full:  # the root is the guest's own
            return [*rules, ("/", layers.LIST), ("/etc", layers.READ), ("/dev/shm", layers.WORK)]  # noqa: S108
        return [*rules, *((path, layers.READ) for path in ETC)]

    def _be_guest(self) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not self.full:
                self._lock()
            layers.hold_descriptors(self.guest_descriptors)
            layers.close_all_but((0, 1, 2, GUEST_FRAMES, self.leash.fileno(), self.workspace))
            for end in (self.wake, self.wake_end, self.permits, self.permits_end):
                end.detach()  # closed just now; its number may be another's soon
            _tell(self.leash, {"up": self.applied}, self.workspace)
            os.close(self.workspace)
            self.leash.close()
        except BaseException as error:  # noqa: BLE001
            self._report(error)
            os._exit(126)
        guest.main(self.place)

    # --- after the fork: wait, kill, reap, report

    def _watch(self, pid: int) -> NoReturn:
        ours = (self.leash, self.wake, self.wake_end, self.permits)
        layers.close_all_but((0, 1, 2, *(end.fileno() for end in ours)))
        self.permits_end.detach()
        status: int | None = None
        try:
            status = self._wait(pid)
        finally:
            self._kill_all()
        last = _reap(pid, 0)
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
            status = _reap(pid, os.WNOHANG)
        return status

    def _executor(self) -> permits.Permits | None:
        """What the guest's filter hands over is done here; None when it hands nothing over, or died before it had one."""
        if self.request["filter"] != "shared":
            return None
        _, listeners, _, _ = socket.recv_fds(self.permits, 1, 1)
        return permits.Permits(listeners[0], (self.place.workspace, self.place.tmp)) if listeners else None

    def _kill_all(self) -> None:
        if self.full:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # as pid 1: all of this pid namespace
            return
        # The dead are not reaped in here: as zombies they hold their places under RLIMIT_NPROC, so a fork bomb runs dry.
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


def _reap(wanted: int, options: int) -> int | None:
    """Reap what there is (WNOHANG) or all there ever will be (0); the wait status of `wanted` if it was among it."""
    status: int | None = None
    while True:
        try:
            pid, found = os.waitpid(-1, options)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == wanted:
            status = found


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


def _prefixes() -> list[str]:
    """Where this interpreter's library lies, when that is not beneath /usr."""
    found = {os.path.normpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)}
    return sorted(path for path in found if path != "/usr" and not path.startswith("/usr/"))


def _tell(channel: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
