"""The layers around a sandbox: one function per privilege step, each of which works or raises LayerError with its name.

Run in this order, in a child that nobody else shares; the reason for the order is beside each function:

    full        namespaces (clone) -> identity -> hostname, loopback -> root -> capabilities -> lock
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
import fcntl
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "FULL_NAMESPACES", "INSIDE_ID", "Binds", "LayerError", "View", "become", "clone", "close_all_but", "confine_files", "drop_capabilities",
    "filter_calls", "first_to_go", "hold_descriptors", "landlock_abi", "limit", "loopback_up", "map_ids", "new_root", "no_new_privileges", "on_parent_death",
    "subreaper", "visible",
]  # fmt: skip

PAGE = os.sysconf("SC_PAGESIZE")
INSIDE_ID = 1000
"""uid and gid of a guest in its own user namespace. Any number but 0: a process that is root inside regains capabilities at exec."""

NAMESPACES = {
    "user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000,
}  # fmt: skip
FULL_NAMESPACES = sum(NAMESPACES.values())

_CLONE = {"x86_64": 56, "aarch64": 220}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _CLOSE_RANGE = 442, 444, 445, 446, 436

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
"""Of a network interface: SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP."""
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


def map_ids(pid: int, uid: int, gid: int) -> None:
    """Called by the parent: inside `pid`'s new user namespace there is one user, who is `uid` outside."""
    if uid == 0 or gid == 0:
        raise LayerError("user namespace", "refusing to map host id 0 into a sandbox")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {uid} 1"),
        ("gid_map", f"{INSIDE_ID} {gid} 1"),
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


def on_parent_death() -> None:
    """SIGKILL when the parent dies. After `become`, which clears it."""
    _prctl("parent death", _PR_SET_PDEATHSIG, signal.SIGKILL)


def subreaper() -> None:
    """Orphans of the tree come to this process instead of the machine's init, so that none is lost sight of."""
    _prctl("subreaper", _PR_SET_SUBREAPER, 1)


# --- the guest's own machine (tier full)


def loopback_up() -> None:
    """127.0.0.1 works among the guest's own processes; the namespace has no other interface."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            request = struct.pack("16sh14x", b"lo", 0)
            name, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", name, flags | _UP))
    except OSError as error:
        raise LayerError("network namespace", f"loopback: {error.strerror}") from error


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


class View(NamedTuple):
    """What is writable in the guest's root, and the small files written into its /etc."""

    bytes_max: int
    inodes_max: int
    etc: Sequence[tuple[str, str]]


def new_root(binds: Binds, view: View) -> None:
    """A root of our own, then forget the host's. /proc must still be the host's here: descriptors are bound through it."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("root", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=2m,nr_inodes=1024")  # noqa: S108  (a place that is there)
    os.chdir("/tmp")  # noqa: S108
    for name in ("dev", "etc", "proc", "scratch", "workspace", "tmp", "dev/shm"):
        os.mkdir(name, 0o755)
    for name, text in view.etc:
        with open(f"etc/{name}", "x", encoding="utf8") as file:
            file.write(text)
    _one_bounded_tmpfs(view)  # before the trees: a shared folder may lie under /tmp
    for target, inside in binds.links:
        os.symlink(target, inside.lstrip("/"))
    for source, inside in binds.trees:
        _bind(source, inside, _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    for source, inside in binds.devices:
        _bind(source, inside, _MS_NOSUID | _MS_NOEXEC)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"dev/{name}")
    os.symlink("/proc/self/fd", "dev/fd")
    _process_list()
    _check(_libc.pivot_root(b".", b"."), "root", "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "root", "umount2")
    os.chdir("/")
    _set_attributes("/", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, recursive=False)


def _one_bounded_tmpfs(view: View) -> None:
    """Workspace, /tmp and /dev/shm are folders of one tmpfs, so that one size and one number of inodes bound them together."""
    options = f"mode=0755,size={view.bytes_max},nr_inodes={view.inodes_max}"
    _mount("scratch", "scratch", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    for name, target, mode in (
        ("workspace", "workspace", 0o755),
        ("tmp", "tmp", 0o777 | 0o1000),
        ("shm", "dev/shm", 0o777 | 0o1000),
    ):
        os.mkdir(f"scratch/{name}")
        os.chmod(f"scratch/{name}", mode)
        _mount(f"scratch/{name}", target, None, _MS_BIND)
    _check(_libc.umount2(b"scratch", _MNT_DETACH), "root", "umount2")
    os.rmdir("scratch")


def _process_list() -> None:
    """A /proc of the guest's own processes, so that /dev/stdout and `<(...)` work; Landlock lets nobody open its files.

    Refused where the host's own /proc is covered in parts (containers). Then there is none: a convenience, not a layer.
    """
    kind = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_RDONLY
    _libc.mount(b"proc", b"proc", b"proc", ctypes.c_ulong(kind), b"hidepid=2,subset=pid")


def _bind(source: int, inside: str, attributes: int) -> None:
    target = inside.lstrip("/")
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
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                break  # past the last one this kernel knows
            _check(-1, "capabilities", f"drop {capability}")
    _prctl("capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capabilities", "capset")


def no_new_privileges() -> None:
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def limit(*, memory_bytes: int, file_bytes: int, descriptors: int, processes: int, cpu_s: int | None) -> None:
    """Per process, hard, but for `processes`, which counts all of one uid; the other totals are the watchdog's."""
    pairs = [
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, descriptors),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 65536),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_SIGPENDING, 256),
        (resource.RLIMIT_NPROC, processes),
    ]
    if cpu_s is not None:
        pairs.append((resource.RLIMIT_CPU, cpu_s))
    for which, most in pairs:
        _, hard = resource.getrlimit(which)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        after = wanted + 1 if which == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else wanted
        try:
            resource.setrlimit(which, (wanted, after))  # CPU: SIGXCPU a second before SIGKILL, so that the reason shows
        except (OSError, ValueError) as error:
            raise LayerError("rlimits", f"limit {which}: {error}") from error


# --- Landlock: rights on named trees, and none anywhere else

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
_FILES_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
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


def confine_files(rules: Iterable[tuple[str, int]], *, tcp_denied: bool) -> tuple[str, ...]:
    """Apply a domain: `rules` are (path, rights); a path that is not there is left out. After the mounts, which it forbids.

    Rules bind to inodes, so the paths are opened here, in the child, where the guest's own mounts are.
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
        for path, rights in rules:
            _allow(ruleset, path, handled & (~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV) if rights == WORK else rights))
        _check(_syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock", "landlock_restrict_self")
    finally:
        os.close(ruleset)
    names = [f"landlock abi {abi}: files"]
    if tcp:
        names.append("landlock: tcp")
    if scope:
        names.append("landlock: signals, abstract sockets")
    return tuple(names)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if not os.path.isdir(path):
            rights &= _ON_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
        _check(_syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), "landlock", f"rule for {path}")
    finally:
        os.close(place)


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
