"""The layers around a sandbox: one function per privilege step, each of which works or raises LayerError with its name.

Run in this order, in a child that nobody else shares; the reason for the order is beside each function:

    full        user, pid namespace (inits.py) -> identity -> other namespaces, hostname, loopback, folders -> capabilities -> lock
    confined    identity (as root) ------------------------------------------------------> lock
    lock        no_new_privs -> rlimits -> landlock -> descriptors -> seccomp

Guarantees
1. Nothing here falls back: a layer that cannot be applied raises, and the child exits before it has run a line of the guest's code.
2. A guest never has host uid 0: `identity` refuses the number 0, inside and outside.
3. In tier full the guest's root holds the runtime read-only, one tmpfs of bounded bytes and inodes, three devices, and nothing else.
4. After `lock` no privilege can come back: no_new_privs, empty capability sets, a default-deny filter, Landlock rights on named trees.

Not here: who calls it (zygote.py), the list of system calls (base/filter.py compiles it; only the bytes come here), tables of limits.

Standard library only: this runs behind the wall. glibc and musl export all of what is called by name; the rest goes by number,
equal on every architecture for calls newer than 2019 (asm-generic/unistd.h).
"""

import ctypes
import errno
import os
import resource
import signal
import socket
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "BESIDE", "FULL_NAMESPACES", "INSIDE_ID", "NAMESPACES", "Binds", "Folders", "LayerError", "Rule", "become", "clone", "close_all_but",
    "confine_files", "drop_capabilities", "enter", "filter_calls", "first_to_go", "hold_descriptors", "keep_capabilities", "landlock_abi",
    "leave_for_new", "limit", "loopback_up", "lower_limits", "map_ids", "new_root", "no_new_privileges", "opened_rules", "own_folders", "own_user_namespace", "set_hostname",
    "subreaper", "visible",
]  # fmt: skip

PAGE = os.sysconf("SC_PAGESIZE")
INSIDE_ID = 1000
"""uid and gid of a guest in its own user namespace. Any number but 0: a process that is root inside regains capabilities at exec."""

NAMESPACES = {
    "user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000,
}  # fmt: skip
BESIDE = 0x8000
"""CLONE_PARENT: the new process is a child of our parent."""
FULL_NAMESPACES = sum(NAMESPACES.values())

_CLONE = {"x86_64": 56, "aarch64": 220}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _CLOSE_RANGE = 442, 444, 445, 446, 436

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 24, 28, 36, 38
_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SET_FLAGS = 0x8914
"""Of a network interface: SIOCSIFFLAGS."""
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100

# PyDLL keeps the interpreter lock: `clone` returns twice, and neither return may find it given away.
_libc = ctypes.PyDLL(None, use_errno=True)
_python = ctypes.pythonapi


class LayerError(Exception):
    """A layer that could not be applied: its name, and what the machine said."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"{layer}: {reason}")
        self.layer = layer


def _check(result: int, layer: str, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise LayerError(layer, f"{call}: {os.strerror(number)} ({errno.errorcode.get(number, number)})")
    return result


def _syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A call that libc may not know by name. Integers go as longs: a variadic call would pass them as ints."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *wide))


def _prctl(layer: str, option: int, value: int = 0, third: int = 0) -> int:
    longs = (ctypes.c_ulong(value), ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return _check(_libc.prctl(ctypes.c_int(option), *longs), layer, f"prctl({option})")


# --- birth


def clone(flags: int) -> int:
    """fork(2) with new namespaces in the same call; like os.fork, with the interpreter's own hooks before and after.

    For a process with one thread only. The child must not use what libc remembers about its thread id, and fork again for real work.
    """
    _python.PyOS_BeforeFork()
    pid = _syscall(_CLONE[os.uname().machine], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    _python.PyOS_AfterFork_Parent()
    return _check(pid, "namespaces", "clone")


def map_ids(pid: int, uid: int, gid: int, *, inside: tuple[int, int] = (INSIDE_ID, INSIDE_ID)) -> None:
    """Inside `pid`'s new user namespace there is one user, who is `uid` outside."""
    if uid == 0 or gid == 0:
        raise LayerError("user namespace", "refusing to map host id 0 into a sandbox")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside[0]} {uid} 1"),
        ("gid_map", f"{inside[1]} {gid} 1"),
    ):
        try:
            file = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
        except OSError as error:
            raise LayerError("user namespace", f"{name}: {error.strerror}") from error


def become(uid: int, gid: int) -> None:
    """Take all three ids. Before the mounts: what is made on a tmpfs belongs to the maker, who must be somebody in the namespace."""
    if uid == 0 or gid == 0:
        raise LayerError("identity", "refusing to run a sandbox as uid 0")
    try:
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise LayerError("identity", f"setresuid: {error.strerror}") from error


def keep_capabilities() -> None:
    """The next change of uid takes none of them away."""
    _prctl("identity", _PR_SET_SECUREBITS, _NO_SETUID_FIXUP)


def own_user_namespace(uid: int, gid: int) -> None:
    """For an ordinary user's zygote: all capabilities over namespaces made from here on, and the ids that it had."""
    leave_for_new("user")
    map_ids(os.getpid(), uid, gid, inside=(uid, gid))


def leave_for_new(*names: str) -> None:
    """unshare(2): namespaces of our own, of the kinds `names`."""
    flags = sum(NAMESPACES[name] for name in names)
    _check(_libc.unshare(ctypes.c_int(flags)), f"{names[0]} namespace", "unshare")


def enter(descriptor: int, *names: str) -> None:
    """setns(2): namespaces of the kinds `names` that `descriptor` stands for: a pidfd, or for one of them a file of /proc/*/ns."""
    flags = sum(NAMESPACES[name] for name in names)
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), f"{names[0]} namespace", "setns")


def visible() -> None:
    """The kernel's watchdog may read its memory figures. A change of identity has forbidden that even to its own user."""
    _prctl("watchdog", _PR_SET_DUMPABLE, 1)


def first_to_go() -> None:
    """When the machine runs out of memory, a sandbox goes before anything of its owner's. Inherited; raising it needs no privilege."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as score:
            text = str(min(1000, int(score.read()) + 500))
            score.seek(0)
            score.write(text)
    except OSError as error:
        raise LayerError("out-of-memory order", f"oom_score_adj: {error.strerror}") from error


def subreaper() -> None:
    """Orphans of the tree come to this process instead of the machine's init, so that none is lost sight of."""
    _prctl("subreaper", _PR_SET_SUBREAPER, 1)


# --- the guest's own machine (tier full)


def set_hostname(name: str) -> None:
    text = name.encode()
    _check(_libc.sethostname(text, ctypes.c_size_t(len(text))), "uts namespace", "sethostname")


def loopback_up() -> None:
    """127.0.0.1 works among the guest's own processes; the namespace has no other interface. Its flags are 0 and IFF_LOOPBACK till then."""
    any_socket = _check(_libc.socket(socket.AF_INET.value, _DATAGRAM_CLOEXEC, 0), "network namespace", "socket")
    try:
        _check(_libc.ioctl(any_socket, ctypes.c_ulong(_SET_FLAGS), _LOOPBACK_UP), "network namespace", "loopback")
    finally:
        os.close(any_socket)


_DATAGRAM_CLOEXEC = int(socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
_LOOPBACK_UP = struct.pack("16sh14x", b"lo", 1)


class Binds(NamedTuple):
    """Trees and files of the host that the guest sees read-only, opened as O_PATH before the identity changes: as root the interpreter
    may live under a folder that the guest's uid cannot pass through; a descriptor can.
    """

    trees: Sequence[tuple[int, str]]
    links: Sequence[tuple[str, str]]
    devices: Sequence[tuple[int, str]]

    @classmethod
    def open(cls, trees: Iterable[tuple[str, str]], devices: Iterable[str]) -> "Binds":
        """`trees`: (host path, path inside). A link of the root folder (/bin -> usr/bin) stays a link; what is not there is left out."""
        opened: list[tuple[int, str]] = []
        links: list[tuple[str, str]] = []
        for source, inside in trees:
            if source == inside and os.path.islink(source) and source.count("/") == 1:
                links.append((os.readlink(source), inside))
                continue
            try:
                opened.append((os.open(source, os.O_PATH | os.O_CLOEXEC), inside))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise LayerError("root", f"{source}: {error.strerror}") from error
        return cls(opened, links, [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in devices])


def new_root(binds: Binds, etc: Sequence[tuple[str, str]]) -> None:
    """A root of our own, then forget the host's. What is writable comes on top of it, by `own_folders`.

    The host's /proc comes along: descriptors are bound through it, and a user namespace may mount a /proc of its own only where it sees one.
    `own_folders` covers it.
    """
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("root", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=2m,nr_inodes=1024")  # noqa: S108  (a place that is there)
    os.chdir("/tmp")  # noqa: S108
    for name in ("dev", "etc", "proc", "workspace", "tmp", "dev/shm"):
        os.mkdir(name, 0o755)
    for name, text in etc:
        with open(f"etc/{name}", "x", encoding="utf8") as file:
            file.write(text)
    for target, inside in binds.links:
        os.symlink(target, inside.lstrip("/"))
    for source, inside in binds.trees:
        _bind(source, inside.lstrip("/"), _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    for source, inside in binds.devices:
        _bind(source, inside.lstrip("/"), _MS_NOSUID | _MS_NOEXEC)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"dev/{name}")
    os.symlink("/proc/self/fd", "dev/fd")
    if not os.path.lexists("output"):  # a shared folder may lie there
        os.symlink("/workspace/output", "output")
    _mount("/proc", "proc", None, _MS_BIND | _MS_REC)
    _check(_libc.pivot_root(b".", b"."), "root", "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "root", "umount2")
    os.chdir("/")
    _set_attributes("/", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, recursive=False)


class Folders(NamedTuple):
    """What a guest may write: bytes and inodes of all of it together."""

    bytes_max: int
    inodes_max: int


COVERED = ("/workspace", "/tmp", "/dev/shm")  # noqa: S108
"""By the guest's own folders: what is shared beneath one of these is bound again on top."""


def own_folders(folders: Folders, shared: Sequence[str] = ()) -> None:
    """/workspace, /tmp and /dev/shm are folders of one tmpfs, so that one size and one number of inodes bound them together."""
    hidden = [path for path in shared if path.startswith(tuple(f"{place}/" for place in COVERED))]
    again = [(os.open(path, os.O_PATH | os.O_CLOEXEC), path) for path in hidden if os.path.exists(path)]
    options = f"mode=0755,size={folders.bytes_max},nr_inodes={folders.inodes_max}"
    _mount("own", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, options)  # noqa: S108
    before = os.umask(0)
    for name, mode in (("workspace", 0o755), ("shm", 0o777 | 0o1000), ("tmp", 0o777 | 0o1000)):
        os.mkdir(f"/tmp/{name}", mode)  # noqa: S108
    os.umask(before)
    for name, target in (("workspace", "/workspace"), ("shm", "/dev/shm"), ("tmp", "/tmp")):  # noqa: S108  /tmp last: it covers the others
        _mount(f"/tmp/{name}", target, None, _MS_BIND)  # noqa: S108
    for source, inside in again:
        _bind(source, inside, _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    _process_list()


def _process_list() -> None:
    """A /proc of the guest's own processes, so that /dev/stdout and `<(...)` work; Landlock lets nobody open its files.

    Refused where the host's own /proc is covered in parts (containers). Then an empty folder covers it: a convenience, not a layer.
    """
    kind = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_RDONLY
    if _libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(kind), b"hidepid=2,subset=pid") < 0:
        _mount("none", "/proc", "tmpfs", kind, "mode=0555,size=4k,nr_inodes=2")


def _bind(source: int, target: str, attributes: int) -> None:
    from_path = f"/proc/self/fd/{source}"
    if os.path.isdir(from_path):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    _mount(from_path, target, None, _MS_BIND | _MS_REC)
    _set_attributes(target, attributes, recursive=True)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), data), "root", f"mount {kind or 'bind'} on {target}")


def _set_attributes(target: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): adds to what is set, so that flags the host locked (noexec, noatime) stay and need not be known."""
    request = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0), 32)
    flags = _AT_RECURSIVE if recursive else 0
    result = _syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, request, 32)
    _check(result, "root", f"mount_setattr on {target}")


# --- taking away


def drop_capabilities() -> None:
    """Empty all five sets. The bounding set first: it needs a capability."""
    drop = _libc.prctl
    for capability in range(64):
        if drop(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # past the last one this kernel knows
            _check(-1, "capabilities", f"drop {capability}")
    _prctl("capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _check(_libc.capset(_CAPABILITY_HEADER, bytes(24)), "capabilities", "capset")


_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)


def no_new_privileges() -> None:
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def limit(*, memory_bytes: int, file_bytes: int, descriptors: int, processes: int) -> None:
    """Per process, hard, but for `processes`, which counts all of one uid; the other totals are the watchdog's."""
    for which, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, descriptors),
        (
            resource.RLIMIT_CORE,
            1,
        ),  # no file is so small, and a handler that core_pattern names is started for 0 and not for 1
        (resource.RLIMIT_MEMLOCK, 65536),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_SIGPENDING, 256),
        (resource.RLIMIT_NPROC, processes),
    ):
        _, hard = resource.getrlimit(which)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(which, (wanted, wanted))
        except (OSError, ValueError) as error:
            raise LayerError("rlimits", f"limit {which}: {error}") from error


def lower_limits(*, memory_bytes: int, processes: int, cpu_s: int | None) -> None:
    """By the guest itself, of what it was locked with: what one call asks for. Where it asks for more, or a negative number, it stays.

    CPU: SIGXCPU a second before SIGKILL, so that the reason shows.
    """
    for which, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        _, hard = resource.getrlimit(which)
        if most is not None and most >= 0 and (hard == resource.RLIM_INFINITY or most < hard):
            resource.setrlimit(which, (most, most + 1 if which == resource.RLIMIT_CPU else most))


# --- Landlock: rights on named trees, and none anywhere else

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
_FILES_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_ALL_FILES = _FILES_BY_ABI[5]
_TCP = 0b11
_SCOPE_ABSTRACT_AND_SIGNAL = 0b11
SCOPE_ABI = 6

READ_RUN = _EXECUTE | _READ_FILE | _READ_DIR
READ = _READ_FILE | _READ_DIR
LIST = _READ_DIR
DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE
_ON_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
WORK = -1
"""Everything but making and commanding devices."""


def landlock_abi() -> int:
    """0 where the kernel has none."""
    return max(0, _syscall(_LANDLOCK_CREATE, None, 0, 1))


class Rule(NamedTuple):
    """A tree or file, opened, and the rights on it."""

    place: int
    rights: int


def opened_rules(rules: Iterable[tuple[str, int]]) -> list[Rule]:
    """From (path, rights); a path that is not there is left out. Rules bind to inodes: what a guest mounts itself is opened after that."""
    found = []
    for path, wanted in rules:
        rights = _ALL_FILES & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV) if wanted == WORK else wanted
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue
        found.append(Rule(place, rights if stat.S_ISDIR(os.fstat(place).st_mode) else rights & _ON_A_FILE))
    return found


def confine_files(rules: Iterable[Rule], *, tcp_denied: bool) -> tuple[str, ...]:
    """Apply a domain. After the mounts, which it forbids.

    Returns what was applied, by name. `tcp_denied` says that Landlock is the only wall, without namespaces beside it; then it must
    also scope signals and abstract sockets, and judge truncation and devices, which it does from ABI 6 on.
    """
    abi = landlock_abi()
    if abi < 1:
        raise LayerError("landlock", "this kernel has no Landlock, or it is not in its `lsm=` list")
    if tcp_denied and abi < SCOPE_ABI:
        raise LayerError(
            "landlock", f"abi {abi} does not hold signals; without namespaces {SCOPE_ABI} is needed (Linux 6.12)"
        )
    handled = _FILES_BY_ABI[min(abi, 5)]
    tcp = _TCP if tcp_denied and abi >= 4 else 0
    scope = _SCOPE_ABSTRACT_AND_SIGNAL if abi >= SCOPE_ABI else 0
    size = 24 if abi >= SCOPE_ABI else 16 if abi >= 4 else 8
    request = ctypes.create_string_buffer(struct.pack("=QQQ", handled, tcp, scope), 24)
    ruleset = _check(_syscall(_LANDLOCK_CREATE, request, size, 0), "landlock", "landlock_create_ruleset")
    try:
        call, number, into, kind, none = _libc.syscall, *map(ctypes.c_long, (_LANDLOCK_ADD, ruleset, 1, 0))
        for place, rights in rules:
            _check(
                call(number, into, kind, struct.pack("=Qi", rights & handled, place), none),
                "landlock",
                "landlock_add_rule",
            )
        _check(_syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock", "landlock_restrict_self")
    finally:
        os.close(ruleset)
    names = [f"landlock abi {abi}: files"]
    if tcp:
        names.append("landlock: tcp")
    if scope:
        names.append("landlock: signals, abstract sockets")
    return tuple(names)


# --- descriptors and system calls, last


def hold_descriptors(wanted: Sequence[int]) -> None:
    """The descriptors `wanted` become 0, 1, 2, ... in this order, inheritable but for those past 2. None of them may be below len(wanted)."""
    assert min(wanted) >= len(wanted), "a descriptor would be overwritten before it is moved"
    for number, descriptor in enumerate(wanted):
        os.dup2(descriptor, number, inheritable=number <= 2)


def close_all_but(kept: Iterable[int]) -> None:
    """Everything else is closed, whoever opened it; after Landlock, whose rule set is a descriptor too."""
    low = 0
    for descriptor in sorted(set(kept)):
        if descriptor > low:
            _close_range(low, descriptor - 1)
        low = descriptor + 1
    _close_range(low, 0xFFFFFFFF)


def _close_range(low: int, high: int) -> None:
    _check(_syscall(_CLOSE_RANGE, low, high, 0), "descriptors", "close_range")


def filter_calls(program: bytes, *, listen: bool = False) -> int:
    """Load compiled BPF for this process and all it will ever start. The last step: it takes away what the others need.

    With `listen` the calls that the program hands over can be answered through the descriptor that is returned; else it is -1.
    """
    if len(program) % 8 or not program:
        raise LayerError("seccomp", f"a filter of {len(program)} bytes is not a BPF program")
    instructions = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)), 16)
    flags = _NEW_LISTENER if listen else 0
    result = _syscall(_SECCOMP[os.uname().machine], _SET_MODE_FILTER, flags, described)
    listener = _check(result, "seccomp", "seccomp(SET_MODE_FILTER)")
    return listener if listen else -1
