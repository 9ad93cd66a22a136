"""The zygote: one small single-threaded process, exec'd by the kernel, that forks a locked child for each sandbox.

    tier full       kernel ──control──> zygote ──fork──> guest `G`, in the pid namespace of an init `I` (inits.py)
    tier confined   kernel ──control──> zygote ──fork──> keeper (keeper.py) ──fork──> guest `G`

Control (descriptor 3; SEQPACKET, one JSON object a packet, descriptors beside it):
    kernel  {"tier", "uid", "gid", "init_uid", "filters": {name: base64 of BPF}}    once, first
    zygote  {"python", "prefix", "executable"}                      or {"failed": layer, "reason"}, and it ends
    kernel  {"spawn": id, "uid", "gid", "filter", "limits", "folders": [shared], ...}    + leash frames stdin stdout stderr
    zygote  {"spawned": id, "pid": of I or keeper, "guest": of G | 0}    + pidfd of I or keeper      or {"failed": id, "layer", "reason"}
    zygote  {"reaped": id, "status": of G | null, "cpu_s", "peak_bytes"}      after that nothing of the sandbox is left
Leash (SEQPACKET, between the kernel and the child):
    child   {"up": [layers]} + descriptor of the workspace          the guest exists, is locked, and waits for its START frame
    child   {"failed": layer, "reason"}                             nothing of the guest has run
    keeper  {"ended": wait status of G | null, "cpu_s", "peak_bytes"}    tier confined: all processes of the sandbox are dead
    kernel  b"K", or end of file                                    tier confined: kill everything

In tier full what all guests see alike, a root of read-only trees, is built once, in a mount namespace of its own (the stem). Each init is
born with a copy of it, beside fresh namespaces of every other kind; a guest enters them all and mounts what it may write. A sandbox with
a skill's folder or shared ones builds the whole root itself, since the host's paths cannot be seen from the stem.

Guarantees
1. A child is fully locked before it waits for START: a pool of parked children needs nothing but a list of them.
2. When the kernel is gone all sandboxes die, also without the zygote: in tier full each init reads the end of `life`, in tier confined
   each keeper that of its leash.
3. Every descriptor of a request is closed in the zygote when the request is answered: no child holds another's.
4. `reaped` is sent when no process of the sandbox is left, and after that nobody waits for one of its pids.

The zygote imports the standard library only, before any guest exists, and never looks at a frame, a file or a line of a guest.
"""

from . import atfork  # noqa: F401  # isort: skip  before everything that registers at fork

import base64
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NamedTuple, NoReturn

from . import guest, inits, keeper, layers

__all__ = ["main"]

PACKET_BYTES_MAX = 1 << 20
REQUEST_DESCRIPTORS = 5
CONTROL = 3

SYNTHETIC_ETC = (
    ("passwd", "guest:x:1000:1000:guest:/workspace:/bin/bash\n"),
    ("group", "guest:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
)

Request = dict[str, Any]


def main(control_number: int) -> None:
    control = socket.socket(fileno=control_number)
    if control.fileno() != CONTROL:
        os.dup2(control.detach(), CONTROL, inheritable=False)
        control = socket.socket(fileno=CONTROL)
    layers.close_all_but((0, 1, 2, CONTROL))
    hello = json.loads(control.recv(PACKET_BYTES_MAX))
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # as guests have it; nobody's Ctrl-C comes to a session of its own
    guest.warm_up()
    try:
        layers.first_to_go()  # inherited by all
        if os.geteuid() == 0:
            os.setgroups([])
        elif hello["tier"] == "full":
            layers.own_user_namespace(hello["uid"], hello["gid"])
        births = _Full(hello) if hello["tier"] == "full" else _Confined(hello)
    except layers.LayerError as error:
        _tell(control, {"failed": error.layer, "reason": str(error)})
        return
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page that holds an object's header
    gc.disable()
    if isinstance(births, _Full):
        births.hire(hello)
    version = ".".join(map(str, sys.version_info[:3]))
    _tell(control, {"python": version, "prefix": sys.base_prefix, "executable": sys.executable})
    Zygote(control, births).serve()


class Child(NamedTuple):
    number: int
    top: int
    """pid of the init or the keeper, whose end is the sandbox's."""
    top_pidfd: int
    guest: int
    guest_pidfd: int
    """0 and -1 in tier confined: the keeper waits for it."""


class Zygote:
    def __init__(self, control: socket.socket, births: "_Full | _Confined") -> None:
        self._control = control
        self._births = births
        self._poll = select.poll()
        self._children: dict[int, Child] = {}
        """by pidfd"""
        self._ended: dict[int, dict[str, Any]] = {}
        """What is known of the guest of a child whose init still has to go."""

    def serve(self) -> None:
        self._poll.register(self._control, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            for descriptor in ready - {CONTROL}:
                if (child := self._children.get(descriptor)) is not None:
                    self._gone(child, descriptor)
            if (
                CONTROL in ready and not self._answer()
            ):  # last: a new child gets the numbers of descriptors that were closed
                self._end_all()
                return

    def _answer(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES_MAX, REQUEST_DESCRIPTORS)
        if not packet:
            return False
        request = json.loads(packet)
        try:
            child = self._births.make(request, descriptors)
        except layers.LayerError as error:
            self._say({"failed": request["spawn"], "layer": error.layer, "reason": str(error)})
        else:
            for pidfd in {child.top_pidfd, child.guest_pidfd} - {-1}:
                self._children[pidfd] = child
                self._poll.register(pidfd, select.POLLIN)
            self._say({"spawned": child.number, "pid": child.top, "guest": child.guest}, child.top_pidfd)
            self._births.prepare()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _say(self, message: dict[str, Any], *descriptors: int) -> None:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # the kernel is gone, as the next look at the socket tells
            _tell(self._control, message, *descriptors)

    def _gone(self, child: Child, pidfd: int) -> None:
        """The guest first: its end ends the init, and an init is gone only when the guest is waited for."""
        del self._children[pidfd]
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if pidfd == child.guest_pidfd:
            dying = _is_exiting(child.top)
            _, status, used = os.wait4(child.guest, 0)
            self._ended[child.number] = {
                "status": None if dying and status == signal.SIGKILL else status, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss << 10,
            }  # fmt: skip
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.top_pidfd, signal.SIGKILL)
            return
        if child.guest:
            if child.number not in self._ended:
                self._gone(child, child.guest_pidfd)
        else:
            os.waitpid(child.top, 0)
        unknown = {"status": None, "cpu_s": 0.0, "peak_bytes": 0}
        self._say({"reaped": child.number, **self._ended.pop(child.number, unknown)})

    def _end_all(self) -> None:
        """The kernel is gone or has let go of us: leave when nothing of any sandbox is left."""
        for child in set(self._children.values()):
            if child.guest:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child.top_pidfd, signal.SIGKILL)
        for child in set(self._children.values()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.guest or child.top, 0)
            select.select([child.top_pidfd], [], [])
        self._births.close()


class _Full:
    nursery: inits.Nursery

    def __init__(self, hello: dict[str, Any]) -> None:
        self._filters = _filters(hello)
        trees = [*guest.RUNTIME, *guest.ETC, *guest.prefixes()]
        self._trees = [(path, path) for path in trees]
        guest.dress(guest.Place("/workspace", "/tmp", None))  # noqa: S108  (the guest's own tmpfs)
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        rules = [(path, layers.READ_RUN) for path in (*guest.RUNTIME, *guest.prefixes())]
        rules += [(path, layers.DEVICE) for path in guest.DEVICES]
        self._rules = layers.opened_rules((path, rights) for path, rights in rules if not os.path.islink(path))
        self._stem = self._plant()

    def hire(self, hello: dict[str, Any]) -> None:
        gid = hello["init_uid"] if os.geteuid() == 0 else hello["gid"]
        self.nursery = inits.Nursery(hello["init_uid"], gid, self._stem, self._filters["nursery"])

    def close(self) -> None:
        self.nursery.close()

    def _plant(self) -> int:
        """A mount namespace with the root that all guests share; a descriptor holds it when the process that made it is gone."""
        told, tell = os.pipe()
        stay, leave = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(leave)
            said = b"+"
            try:
                os.umask(0o022)
                layers.leave_for_new("mount")
                binds = layers.Binds.open(self._trees, guest.DEVICES)
                layers.new_root(binds, SYNTHETIC_ETC)
            except layers.LayerError as error:
                said = json.dumps([error.layer, str(error)]).encode()
            except OSError as error:
                said = json.dumps(["root", str(error)]).encode()
            os.write(tell, said)
            os.read(stay, 1)
            os._exit(0)
        os.close(tell)
        os.close(stay)
        try:
            said = os.read(told, 4096)
            if said != b"+":
                layer, reason = json.loads(said) if said else ("root", "nobody was left to say why")
                raise layers.LayerError(layer, reason.removeprefix(f"{layer}: "))
            return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(told)
            os.close(leave)
            os.waitpid(pid, 0)

    def prepare(self) -> None:
        """What can be done before the next request comes."""
        self.nursery.order()

    def make(self, request: Request, descriptors: list[int]) -> Child:
        top, top_pidfd = self.nursery.take()
        try:
            layers.map_ids(top, request["uid"], request["gid"])
            pid = self._fork_into(top_pidfd)
            if pid == 0:
                self._be_guest(request, descriptors, top_pidfd)
        except layers.LayerError:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(top_pidfd, signal.SIGKILL)
            os.close(top_pidfd)
            self.prepare()
            raise
        return Child(request["spawn"], top, top_pidfd, pid, os.pidfd_open(pid))

    def _fork_into(self, init: int) -> int:
        """A child of ours in the pid namespace of `init`. Only root may come back from there: for others somebody goes who never returns."""
        if os.geteuid() == 0:
            layers.enter(init, "pid")  # for the next fork only
            pid = -1
            try:
                pid = _fork()
            finally:
                if pid != 0:  # the child stays there
                    layers.enter(self._own_pids, "pid")
            return pid
        told, tell = os.pipe()
        scout = _fork()
        if scout == 0:
            try:
                layers.enter(init, "pid")
                pid = layers.clone(layers.BESIDE)
                if pid == 0:
                    return 0
                said = str(pid)
            except layers.LayerError as error:
                said = str(error)
            os.write(tell, said.encode())
            os._exit(0)
        os.close(tell)
        said = os.read(told, 4096).decode()
        os.close(told)
        os.waitpid(scout, 0)
        if not said.isdigit():
            raise layers.LayerError("pid namespace", said.removeprefix("pid namespace: "))
        return int(said)

    def _be_guest(self, request: Request, descriptors: list[int], init: int) -> NoReturn:
        try:
            locked = self._locked(request, descriptors, init)
            if locked is not None:
                guest.main(*locked)
        finally:
            os._exit(126)  # whatever it was, no second zygote may come out of here

    def _locked(self, request: Request, descriptors: list[int], init: int) -> tuple[guest.Place, socket.socket] | None:
        """None when a layer refused, which is told."""
        leash, frames, *streams = descriptors
        try:
            os.setsid()
            applied, place = self._enter(request, init)
            layers.hold_descriptors([*streams, frames])
            os.umask(0o077)
            workspace = os.open(place.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            layers.no_new_privileges()
            layers.limit(**request["limits"])
            applied += ["no_new_privs", "rlimits"]
            own = [(place.workspace, layers.WORK), (place.tmp, layers.WORK), ("/dev/shm", layers.WORK)]  # noqa: S108
            own += [("/", layers.LIST), ("/etc", layers.READ)]
            own += [(place.skill, layers.READ_RUN)] if place.skill else []
            own += [(path, layers.READ_RUN) for path in request["folders"] if os.path.exists(path)]
            applied += layers.confine_files([*self._rules, *layers.opened_rules(own)], tcp_denied=False)
            layers.close_all_but((0, 1, 2, guest.FRAMES, leash, workspace))
            layers.filter_calls(self._filters[request["filter"]])
            applied.append("seccomp allow-list")
            channel = guest.begin(place, rehearse=request["rehearse"])
            told = socket.socket(fileno=leash)
            _tell(told, {"up": applied}, workspace)
            os.close(workspace)
            told.close()
        except BaseException as error:  # noqa: BLE001
            keeper.report(leash, error)
            return None
        return place, channel

    def _enter(self, request: Request, init: int) -> tuple[list[str], guest.Place]:
        skill: str | None = request["skill"]
        shared: list[str] = request["folders"]
        more = [(path, path) for path in shared] + ([(skill, "/skill")] if skill else [])
        layers.enter(init, "user", "network", "ipc", "uts", "cgroup", *(() if more else ("mount",)))
        if more:
            layers.leave_for_new("mount")
            binds = layers.Binds.open([*self._trees, *more], guest.DEVICES)
        layers.become(layers.INSIDE_ID, layers.INSIDE_ID)
        layers.visible()
        layers.set_hostname("sandbox")
        layers.loopback_up()
        if more:
            os.umask(0o022)
            layers.new_root(binds, SYNTHETIC_ETC)
        if skill:
            os.environ["SKILL"] = "/skill"
        layers.own_folders(layers.Folders(request["bytes_max"], request["inodes_max"]), shared)
        layers.drop_capabilities()
        applied = [*(f"{name} namespace" for name in layers.NAMESPACES), "private root", "no capabilities"]
        return applied, guest.Place("/workspace", "/tmp", "/skill" if skill else None)  # noqa: S108  (the guest's own tmpfs)


class _Confined:
    def __init__(self, hello: dict[str, Any]) -> None:
        self._filters = _filters(hello)

    def prepare(self) -> None:
        """Nothing: a keeper is forked with its guest."""

    def close(self) -> None:
        """Nobody else was hired."""

    def make(self, request: Request, descriptors: list[int]) -> Child:
        pid = _fork()
        if pid == 0:
            keeper.Keeper(request, descriptors, self._filters[request["filter"]]).run()
        return Child(request["spawn"], pid, os.pidfd_open(pid), 0, -1)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:  # no memory, no pid, or its init was killed
        raise layers.LayerError("fork", str(error)) from error


def _is_exiting(pid: int) -> bool:
    """Whether it was killed before its guest ended, which then was the cause of that. PF_EXITING, in the ninth field."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return bool(int(stat.read().rpartition(b")")[2].split()[6]) & 0x4)
    except OSError:
        return True


def _filters(hello: dict[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in hello["filters"].items()}


def _tell(channel: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
