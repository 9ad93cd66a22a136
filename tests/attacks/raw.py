"""What the Python programs of the corpus share: arguments, system calls by number, and the words that the judge reads.

It lies beside every program, in a sandbox as in the control. `A` are the things that the judge has put around (`key=value` arguments).
`tried()` is the last thing of every program: without it a program that broke early would pass for contained.
`escaped(what)` is the program's own word, believed for reads and openings that leave no trace outside.

Importing this names the process after the run's marker, so that forked children are found when they outlive it.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import platform
import struct
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

A: Any = SimpleNamespace(**dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word))

X86 = platform.machine() == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)

NUMBERS = {  # x86_64, aarch64
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "clone": (56, 220), "clone3": (435, 435), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "fsopen": (430, 430), "open_tree": (428, 428),
    "mount_setattr": (442, 442), "chroot": (161, 51), "personality": (135, 92), "capset": (126, 91), "io_uring_setup": (425, 425),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "quotactl": (179, 60), "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
    "swapon": (167, 224), "reboot": (169, 142), "openat2": (437, 437), "syslog": (103, 116), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "msgsnd": (69, 189),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "kcmp": (312, 272), "process_madvise": (440, 440), "move_pages": (279, 239),
    "sched_setscheduler": (144, 119), "ioprio_set": (251, 30), "setresuid": (117, 147), "setuid": (105, 146), "seccomp": (317, 277),
    "ioctl": (16, 29), "prctl": (157, 167), "prlimit64": (302, 261), "getpid": (39, 172), "socket": (41, 198), "fchmodat2": (452, 452),
    "landlock_create_ruleset": (444, 444), "modify_ldt": (154, -1), "iopl": (172, -1), "acct": (163, 89), "settimeofday": (164, 170),
    "sethostname": (170, 161), "vmsplice": (278, 75), "statmount": (457, 457), "listmount": (458, 458), "lsm_list_modules": (461, 461),
    "setxattrat": (463, 463), "file_setattr": (469, 469), "uselib": (134, -1), "cachestat": (451, 451), "mseal": (462, 462),
}  # fmt: skip

END, NOTE = 10, 8


def call(name: str | int, *arguments: Any) -> int:
    """A system call by name or number; OSError when it fails."""
    number = name if isinstance(name, int) else NUMBERS[name][0 if X86 else 1]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


@contextlib.contextmanager
def refusable(what: str = "") -> Iterator[None]:
    """One attempt: whatever the machine answers, the program goes on to its next one."""
    try:
        yield
    except (OSError, ValueError, MemoryError, OverflowError, RuntimeError) as error:
        print(f"refused: {what} {type(error).__name__} {getattr(error, 'errno', '')}", flush=True)


def attempt(what: str, action: Callable[[], Any]) -> Any:
    """Escaped when `action` works."""
    with refusable(what):
        result = action()
        escaped(what)
        return result
    return None


def reaches(name: str | int, *arguments: Any) -> None:
    """Escaped when the call gets behind the door: any answer but that it is forbidden or not there."""
    try:
        call(name, *arguments)
        escaped(f"{name} answers")
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            print(f"refused: {name} {error}", flush=True)
        else:
            escaped(f"{name} is reached: {error}")


def escaped(what: str) -> None:
    print(f"ESCAPED {what}", flush=True)


def lacks(what: str) -> None:
    """This host has no such thing; believed in the control run only, and only when the header says that it may be so."""
    print(f"LACKS {what}", flush=True)


def tried() -> None:
    print("TRIED", flush=True)


def show(data: bytes) -> None:
    """Bytes to the output as they are: the judge looks for secrets in them."""
    os.write(1, data[: 1 << 16] + b"\n")


def steal(path: str) -> None:
    with refusable(path), open(path, "rb") as file:
        show(file.read(1 << 16))


def frame(kind: int, payload: bytes, number: int = 0) -> bytes:
    return struct.pack("<IBI", len(payload), kind, number) + payload


def say(data: bytes, descriptor: int = 3) -> None:
    """Raw bytes to the frame channel."""
    while data:
        data = data[os.write(descriptor, data) :]


def end(**fields: Any) -> None:
    say(frame(END, json.dumps(fields).encode()))


def stay(seconds: float) -> None:
    """Be there for so long; the judge ends it earlier when it has seen enough."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def hold(seconds: float = 9.0) -> None:
    """Long enough that what is held counts as held, and not as an overshoot between two looks; whoever has seen enough ends it."""
    print("HELD", flush=True)
    stay(seconds)


def hold_alone() -> None:
    """The same where nobody outside can see it: the program itself says that it was not ended."""
    hold(2.5 if A.way == "control" else 9.0)


def machine_code(code: bytes) -> int:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return int(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())


def elf(code: bytes, *, bits: int = 64) -> bytes:
    """A program of one segment that starts at its first byte: no compiler needed."""
    base, head = 0x400000, 64 + 56 if bits == 64 else 52 + 32
    if bits == 64:
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        file = ident + struct.pack(
            "<HHIQQQIHHHHHH", 2, 62 if X86 else 183, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0
        )
        file += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, head + len(code), head + len(code), 4096)
    else:
        ident = b"\x7fELF\x01\x01\x01" + bytes(9)
        file = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + head, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        file += struct.pack("<IIIIIIII", 1, 0, base, base, head + len(code), head + len(code), 5, 4096)
    return file + code


def fork(child: Callable[[], Any]) -> int:
    """`child` runs in a process of its own and never comes back."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid


with contextlib.suppress(OSError):
    call("prctl", 15, f"{A.marker}".encode() if hasattr(A, "marker") else b"corpus", 0, 0, 0)
