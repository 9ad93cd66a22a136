"""Changes of mode and time, done for the guest by its init where the guest may not do them itself.

Landlock judges opening, making, renaming and removing; it does not judge chmod(2) and utimensat(2). In tier confined without a uid of its
own a guest has the operator's uid, so a chmod of the operator's key would be its right. seccomp sees numbers and no paths, so it can
only forbid the calls, and then `cp`, `tar` and `git` fail. So there the filter hands these calls to the init (SECCOMP_RET_USER_NOTIF),
which opens what the guest named, looks at where that really is, and does it only beneath the guest's own folders.

Guarantees
1. The init acts on the descriptor that it has opened and looked at; what the guest renames or rewrites meanwhile changes nothing.
2. Nothing outside the two folders is touched, and no set-uid, set-gid bit is set.
3. Whatever goes wrong is an errno for the guest; the init goes on. If the init is gone, the calls fail with ENOSYS.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from . import layers

__all__ = ["Permits"]

_RECEIVE, _SEND, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_VALID = struct.Struct("=Q")

_CALLS = {
    "x86_64": {90: "chmod", 91: "fchmod", 268: "fchmodat", 280: "utimensat"},
    "aarch64": {52: "fchmod", 53: "fchmodat", 88: "utimensat"},
}
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_SET_ID_BITS = 0o6000
_PATH_BYTES_MAX = 4096
_TIMES_BYTES = 32


class Permits:
    def __init__(self, listener: int, folders: Iterable[str]) -> None:
        self.listener = listener
        self._folders = tuple(os.path.realpath(folder) + "/" for folder in folders)
        self._calls = _CALLS[os.uname().machine]
        self._libc = ctypes.PyDLL(None, use_errno=True)

    def answer(self) -> None:
        """One waiting call. To be called when the listener is readable."""
        request = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, request)
        except OSError:
            return  # its caller was killed meanwhile
        number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(request)
        try:
            self._execute(number, pid, self._calls[call], arguments)
            result = 0
        except OSError as error:
            result = error.errno or errno.EPERM
        except OverflowError:  # an address that is none
            result = errno.EFAULT
        except (KeyError, ValueError):
            result = errno.EPERM
        try:
            fcntl.ioctl(self.listener, _SEND, _RESPONSE.pack(number, 0, -result, 0))
        except OSError:
            return  # likewise

    def _execute(self, number: int, pid: int, call: str, arguments: list[int]) -> None:
        if call == "fchmod":
            place, (mode, *_) = (arguments[0], 0, 0), arguments[1:]
        elif call == "chmod":
            place, (mode, *_) = (_AT_FDCWD, arguments[0], 0), arguments[1:]
        elif call == "fchmodat":
            place, (mode, *_) = (_signed(arguments[0]), arguments[1], 0), arguments[2:]
        else:
            place, mode = (_signed(arguments[0]), arguments[1], arguments[3]), 0
        if mode & _SET_ID_BITS:
            raise PermissionError(errno.EPERM, "set-id bits")
        times = _read(pid, arguments[2], _TIMES_BYTES, end=b"") if call == "utimensat" and arguments[2] else None
        with self._opened(pid, *place) as target:
            fcntl.ioctl(self.listener, _STILL_VALID, _VALID.pack(number))  # else `pid` may be somebody else by now
            if call == "utimensat":
                if self._libc.utimensat(_AT_FDCWD, target.encode(), times, 0) < 0:
                    raise OSError(ctypes.get_errno(), "utimensat")
            else:
                os.chmod(target, mode & 0o1777)

    @contextmanager
    def _opened(self, pid: int, folder: int, path_address: int, flags: int) -> Iterator[str]:
        """A path that names the very inode which the guest named, if that lies beneath its folders."""
        start = f"/proc/{pid}/cwd" if folder == _AT_FDCWD else f"/proc/{pid}/fd/{folder}"
        target = os.open(start, os.O_PATH | os.O_CLOEXEC)
        try:
            if path_address:
                path = _read(pid, path_address, _PATH_BYTES_MAX, end=b"\0").split(b"\0", 1)[0]
                if not path:
                    raise FileNotFoundError(errno.ENOENT, "an empty path")
                follow = os.O_NOFOLLOW if flags & _AT_SYMLINK_NOFOLLOW else 0
                named = os.open(path, os.O_PATH | os.O_CLOEXEC | follow, dir_fd=target)
                os.close(target)
                target = named
            real = os.readlink(f"/proc/self/fd/{target}")
            if not (real + "/").startswith(self._folders):
                raise PermissionError(errno.EPERM, "outside")
            yield f"/proc/self/fd/{target}"
        finally:
            os.close(target)


def _signed(descriptor: int) -> int:
    return ctypes.c_int(descriptor & 0xFFFFFFFF).value


def _read(pid: int, address: int, size: int, *, end: bytes) -> bytes:
    """Bytes of the guest's memory: `size` of them, fewer only when `end` is among them."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        to_page_end = layers.PAGE - address % layers.PAGE
        found = os.pread(memory, min(size, to_page_end), address)
        if len(found) < size and not (end and end in found):
            found += os.pread(memory, size - len(found), address + len(found))
        if len(found) < size and not (end and end in found):
            raise OSError(errno.EFAULT, "the guest's memory ends")
        return found
    finally:
        os.close(memory)
