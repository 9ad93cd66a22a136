"""What a bridge and a kernel say to each other before MCP, and how one line of MCP travels between them. Both sides read this file.

    bridge -> kernel   {"protocol", "version", "cwd", "agent", "grants", "tier", "memory_profiles", "toolsets", "bridge"}     one line
    kernel -> bridge   {"ok": {"protocol", "version", "pid"}}, {"replace": true} or {"error": {...}}              one line

From there each line of MCP has a number in front, given by the bridge and counted from 1:

    bridge -> kernel   7 {...}          the host's seventh line
                       7+ {...}         the same again, for a kernel that may have seen it: the one before ended without answering
                       7= {...}         the same again, to bring a new kernel to where the old one was: its answer is not wanted
                       7~900 {...       a line of 900 bytes, too long to be served: only its head and its tail
    kernel -> bridge   7 {...}          the answer to line 7
                       7= {...}         the same; the bridge keeps line 7 for the next kernel (a handshake)
                       7  or  7=        line 7 gets no answer (a notification, a request that was cancelled)
                       0 {...}          answers nothing: a notification, or a question to the host

Guarantees
1. The state folder is ours, no link and closed to others before anything in it is opened (`opened`), and who listens there is of our uid
   (`connected`).
2. A path of any length: past what a socket's name can hold it goes through a descriptor of the folder.

The standard library only, and little of it: every start of a host waits for this import.
"""

import os
import re
import socket
import stat
import struct
from collections.abc import Mapping

__all__ = [
    "CONTROL", "LINE_BYTES_MAX", "PROTOCOL", "VERSION", "Refused", "connected", "newer", "opened", "state_path", "take_number",
]  # fmt: skip

PROTOCOL = 1
VERSION = "0.1.0"
"""As in pyproject.toml; the installed metadata cost as much to read as everything else here."""
CONTROL = "control"
LINE_BYTES_MAX = 20 << 20
"""Above what the kernel takes; of a longer line only the ends go over."""
SUN_PATH_MAX = 107
_NUMBERED = re.compile(rb"(\d{1,18})(\+|=|~\d{1,18}|)(?: |$)")


class Refused(Exception):
    """`code: what happened. What to do.`"""


def state_path(given: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """Absolute; None where there is no home folder to put it into."""
    named = given or environ.get("AGENT_KERNEL_HOME")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    if environ.get("XDG_STATE_HOME"):
        return os.path.join(os.path.abspath(environ["XDG_STATE_HOME"]), "agent-kernel")
    home = os.path.expanduser("~")
    return os.path.join(home, ".local/state/agent-kernel") if os.path.isabs(home) else None


def opened(folder: str) -> int:
    """A descriptor of the state folder, which is made when it is missing; raises Refused where it is not ours alone."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except FileExistsError:
        raise Refused(f"state.not_a_folder: {folder} is a file. Name a folder with --state.") from None
    except OSError as error:
        raise Refused(
            f"state.read_only: {folder} cannot be made: {error.strerror}. Name another folder with --state."
        ) from None
    if stat.S_ISLNK(found.st_mode):
        raise Refused(f"state.link: {folder} is a symbolic link. Name the real folder with --state.")
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"state.not_a_folder: {folder} cannot be opened: {error.strerror}. Name another with --state."
        ) from None
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        raise Refused(f"state.not_ours: {folder} belongs to uid {found.st_uid}, not to us. Name another with --state.")
    if found.st_mode & 0o022:
        os.close(fd)
        raise Refused(f"state.not_private: Others may write {folder}. Run: chmod 700 {folder}")
    return fd


def connected(folder: str, fd: int) -> socket.socket | None:
    """A connection to the kernel of the folder whose descriptor is `fd`; None when nobody listens there."""
    path = f"{folder}/{CONTROL}"
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        path = f"/proc/self/fd/{fd}/{CONTROL}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise Refused(f"state.control: {folder}/{CONTROL} cannot be reached: {error}.") from None
    uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid != os.geteuid():
        sock.close()
        raise Refused(f"state.not_ours: The kernel that listens in {folder} runs as uid {uid}. Name another folder.")
    return sock


def take_number(line: bytes) -> tuple[int, bytes, bytes]:
    """(number, mark, the rest) of a line; the mark is empty, `+`, `=` or `~size`. Raises ValueError."""
    found = _NUMBERED.match(line)
    if found is None:
        raise ValueError("the line has no number")
    return int(found[1]), found[2], line[found.end() :]


def newer(one: str, other: str) -> bool:
    """Whether version `one` comes after `other`; what is no number in them counts as equal."""
    return _parts(one) > _parts(other)


def _parts(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
