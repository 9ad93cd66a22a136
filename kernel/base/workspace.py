"""Files into and out of a sandbox: names that stay beneath it, and a collection that trusts nothing it finds.

A guest chooses names, types, sizes and links in its workspace, and may still change them while they are read. So a collection walks by
descriptors, one component at a time, never by path; a link is not followed, and what was opened is looked at again before it is read.

Guarantees
1. No name leads out: absolute, `..`, empty, NUL, backslash or a part over 255 bytes is `path.outside`.
2. Only regular files with one link are read, at most `collected_files_max` of them and `collected_bytes_max` bytes; the rest is named with its
   size and no data, until the names are a mebibyte. Symlinks, FIFOs, sockets, devices and second links are left where they are.
3. Input files that come back with the bytes they had are not outputs.
4. `usage` counts what is written, not what is shown: files without a name that are open or mapped, folders that nobody may list. What a
   guest hides from it all the same counts as too much. Only a file in a message that nobody receives is seen by nobody.
5. `clear` leaves nothing, however deep the tree and whatever its modes: three descriptors and no recursion.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import ArgumentError, LimitExceeded
from .limits import Limits
from .output import harmless
from .system import flags

__all__ = ["Found", "Usage", "checked_files", "checked_path", "clear", "collect", "is_small", "usage"]

DEPTH_MAX = 32
CHARS_MAX = 1000
"""Of a whole path: four bytes each at most, and then it still fits the system calls that take 4095."""
DEPTH_COUNTED_MAX = 128
ENTRIES_MAX = 50_000
READ_BYTES = 1 << 20
SMALL_FILES, SMALL_BYTES = 8, 1 << 16
NAMES_CHARS_MAX = 1 << 20
NOTHING = -1
"""Less than an empty file."""
NOT_OUTPUT = frozenset({"__pycache__", ".cache"})
"""Made by tools and not by the work."""


_CLEARING = threading.Lock()


class Found(NamedTuple):
    path: str
    size_bytes: int
    data: bytes | None
    """None: past a limit of the collection; the file is named and not kept."""


class Usage(NamedTuple):
    bytes: int
    inodes: int


def checked_path(path: str) -> str:
    """`path` if it is relative and stays beneath; raises `path.outside` else."""
    parts = path.split("/")
    try:
        fine = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    except UnicodeEncodeError:
        fine = False
    if not fine or "\0" in path or "\\" in path or len(parts) > DEPTH_MAX or len(path) > CHARS_MAX:
        raise ArgumentError(
            "path.outside", f"{path[:200]!r} is not a path beneath the workspace. Use relative names like `data/a.csv`."
        )
    return path


def checked_files(files: Mapping[str, str | bytes], limits: Limits) -> dict[str, bytes]:
    """Input files as bytes; every name checked, and the whole bounded by what a workspace may hold."""
    checked: dict[str, bytes] = {}
    for path, content in files.items():
        try:
            if not isinstance(content, str | bytes):
                raise ArgumentError("argument.invalid", f"files[{path[:200]!r}] is a text.")
            checked[checked_path(path)] = content if isinstance(content, bytes) else content.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(
                "argument.invalid",
                f"files[{path!r}] holds a lone surrogate, which is not text: {error.reason}. Remove it.",
            ) from error
    for path in checked:
        above = next((str(folder) for folder in PurePosixPath(path).parents if str(folder) in checked), None)
        if above is not None:
            raise ArgumentError(
                "argument.invalid", f"files names {above!r} both as a file and as the folder of {path!r}. Rename one."
            )
    total = sum(map(len, checked.values()))
    if total > limits.workspace_bytes_max:
        raise LimitExceeded(
            "limit.exceeded",
            f"The files are {total} bytes, a workspace holds {limits.workspace_bytes_max}."
            " The operator's line is `workspace_bytes_max` in [limits] of config.toml.",
        )
    return checked


def is_small(workspace: int) -> bool:
    """Whether it is collected sooner than a thread would begin to: a few files and no folder."""
    names = os.listdir(workspace)
    if len(names) > SMALL_FILES:
        return False
    total = 0
    for name in names:
        with suppress(OSError):
            facts = os.stat(name, dir_fd=workspace, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                return False
            total += facts.st_size
    return total <= SMALL_BYTES


def collect(workspace: int, given: Mapping[str, bytes], limits: Limits) -> list[Found]:
    """Files of the folder `workspace` that are new or differ from `given`, sorted by path."""
    known = {path: hashlib.sha256(data).digest() for path, data in given.items()}
    found: list[Found] = []
    room = limits.collected_bytes_max
    entries = _Budget(ENTRIES_MAX)
    names = 0
    for folder, name, path in _regular_files(workspace, "", 0, entries):
        names += len(path)
        if names > NAMES_CHARS_MAX:
            break
        most = min(room, limits.file_bytes_max) if len(found) < limits.collected_files_max else NOTHING
        size, data = _read(folder, name, most)
        if size < 0 or (data is not None and known.get(path) == hashlib.sha256(data).digest()):
            continue
        if data is not None:
            room -= len(data)
        found.append(Found(harmless(path.encode(errors="replace").decode()), size, data))
    return sorted(found, key=lambda file: file.path)  # names that are no text may become equal


def usage(folders: list[int], pids: list[int]) -> Usage:
    """Blocks and inodes below `folders`, with files there that `pids` hold and nobody can see any more (tier confined).

    A tree that is too large, too deep or hidden counts as ENTRIES_MAX inodes.
    """
    total, inodes = 0, 0
    entries = _Budget(ENTRIES_MAX)
    unnamed: dict[int, int] = {}
    for folder in folders:
        for facts in _everything(folder, 0, entries):
            total += facts.st_blocks * 512
            inodes += 1
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):
                below = os.readlink(f"/proc/self/fd/{folder}") + "/"
                try:
                    unnamed |= _unnamed_mapped(pid, below) | _unnamed_open(pid)
                except PermissionError:
                    if _lives(pid) and _may_look(
                        pid, pids
                    ):  # a program that may be run and not read hides what it holds
                        entries.hide()
    return Usage(total + sum(unnamed.values()), inodes if entries.left >= 0 else ENTRIES_MAX)


def _unnamed_open(pid: int) -> dict[int, int]:
    """Inode -> bytes."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            facts = os.stat(f"/proc/{pid}/fd/{name}")
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
                found[facts.st_ino] = facts.st_blocks * 512
    return found


def _unnamed_mapped(pid: int, below: str) -> dict[int, int]:
    """As above, where one mapped page keeps a file. Without the right to look at it, it may be as large as a file of that process can be."""
    found = {}
    with open(f"/proc/{pid}/maps", encoding="utf8", errors="replace") as maps:
        for line in maps:
            if line.endswith(" (deleted)\n") and below in line:
                place, _, _, _, inode, _ = line.split(maxsplit=5)
                try:
                    found[int(inode)] = os.stat(f"/proc/{pid}/map_files/{place}").st_blocks * 512
                except PermissionError:
                    found[int(inode)] = _file_bytes_max(pid)
    return found


def _file_bytes_max(pid: int) -> int:
    with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
        (line,) = [line for line in limits if line.startswith("Max file size")]
    most = line.split()[3]
    return 1 << 62 if most == "unlimited" else int(most)


def _lives(pid: int) -> bool:
    """What is ending, and has no memory any more, is nobody's to look at, long before it is a zombie."""
    with suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return file.read(2) != "0 "
    return False


def clear(root: Path) -> None:
    """Remove `root` and everything below, when those who wrote there are dead. What lies in a folder is moved up to `root` and comes later.

    One at a time: whoever clears the folder of all must not meet one who clears a folder in it.
    """
    with _CLEARING:
        _clear(root)


def _clear(root: Path) -> None:
    try:
        top = os.open(root, _FOLDER)
    except FileNotFoundError:
        return
    try:
        waiting, moved = ["."], 0
        while waiting:
            name = waiting.pop()
            folder = os.open(name, _FOLDER, dir_fd=top)
            try:
                for one in os.listdir(folder):
                    if stat.S_ISDIR(os.stat(one, dir_fd=folder, follow_symlinks=False).st_mode):
                        _make_ours(one, folder)
                        moved += 1
                        waiting.append(f".cleared-{os.getpid()}-{moved}")
                        os.rename(one, waiting[-1], src_dir_fd=folder, dst_dir_fd=top)
                    else:
                        os.unlink(one, dir_fd=folder)
            finally:
                os.close(folder)
            if name != ".":
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    root.rmdir()


def _make_ours(name: str, folder: int) -> None:
    """A folder can be emptied, and moved, by an owner who may read, write and enter it."""
    place = os.open(name, _FOLDER | os.O_PATH, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
    finally:
        os.close(place)


def _may_look(pid: int, pids: list[int]) -> bool:
    """Whether the first process above `pids`, which is ours and hides nothing, can be looked into. Root without CAP_SYS_PTRACE cannot."""
    try:
        while pid in pids:
            with open(f"/proc/{pid}/stat", encoding="utf8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace"):
            return True
    except OSError:
        return False


@dataclass(slots=True)
class _Budget:
    left: int

    def spend(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def hide(self) -> None:
        self.left = -1


def _regular_files(folder: int, prefix: str, depth: int, entries: _Budget) -> Iterator[tuple[int, str, str]]:
    for name, facts in _entries(folder, entries):
        path = f"{prefix}{name}"
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
            yield folder, name, path
        elif stat.S_ISDIR(facts.st_mode) and depth < DEPTH_MAX and name not in NOT_OUTPUT:
            with suppress(OSError):
                below = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _regular_files(below, f"{path}/", depth + 1, entries)
                finally:
                    os.close(below)


def _everything(folder: int, depth: int, entries: _Budget) -> Iterator[os.stat_result]:
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as scan:
        names = [entry.name for entry in scan if entries.spend()]
    for name in names:
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            yield facts
            if stat.S_ISDIR(facts.st_mode):
                if depth == DEPTH_COUNTED_MAX:  # nobody works that deep; what hides there is not looked for
                    entries.hide()
                    return
                with _listable(folder, name, facts.st_mode) as below:
                    yield from _everything(below, depth + 1, entries)
        except PermissionError:  # made unreadable while we looked
            entries.hide()
            return
        except OSError:  # gone, or replaced by something else
            continue


@contextmanager
def _listable(folder: int, name: str, mode: int) -> Iterator[int]:
    """The folder `name` opened. One that its owner may not list is made listable meanwhile: we are that owner, or root."""
    if mode & stat.S_IRWXU == stat.S_IRWXU or os.geteuid() == 0:
        below = os.open(name, _FOLDER, dir_fd=folder)
        try:
            yield below
        finally:
            os.close(below)
        return
    place = os.open(name, _FOLDER | os.O_PATH, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(mode) | stat.S_IRWXU)
        below = os.open(".", _FOLDER, dir_fd=place)
        try:
            yield below
        finally:
            os.close(below)
            os.chmod(f"/proc/self/fd/{place}", stat.S_IMODE(mode))
    finally:
        os.close(place)


_FOLDER = flags("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")


def _entries(folder: int, entries: _Budget) -> Iterator[tuple[str, os.stat_result]]:
    with suppress(OSError), os.scandir(folder) as scan:
        for entry in scan:
            if not entries.spend():
                return
            with suppress(OSError):
                yield entry.name, os.stat(entry.name, dir_fd=folder, follow_symlinks=False)


def _read(folder: int, name: str, bytes_max: int) -> tuple[int, bytes | None]:
    """Size and bytes; (-1, None) when it turns out to be something else than the walk saw."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder
        )
    except PermissionError:
        return -1, None  # made unreadable by the guest
    except OSError:
        return -1, None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            return -1, None
        if facts.st_size > bytes_max:
            return facts.st_size, None
        parts = bytearray()
        while len(parts) <= bytes_max and (part := os.read(descriptor, min(READ_BYTES, bytes_max + 1 - len(parts)))):
            parts += part
        return (len(parts), bytes(parts)) if len(parts) <= bytes_max else (len(parts), None)
    finally:
        os.close(descriptor)
