"""Files of sandboxes, copied into a folder that the operator shared as `:rw`. The names are a guest's, the folder may be changed by others
meanwhile: so every part of a way is opened by itself, beneath the descriptor of the one above, and no link is followed.

    to                                       where the files go
    an existing folder, or ends in `/`       into it, by the last part of their names; it is made when it is missing
    anything else, one file                  there, under that name
    anything else, several files             as into a folder

Guarantees
1. Nothing is written outside the innermost shared folder that holds `to`, and only if that one is `:rw`; else `export.denied`. A part of the
   way that is a link is `path.outside`.
2. Without `overwrite` nothing that is there is changed, also when it comes there in the same moment (`export.exists`); with it only plain
   files are replaced. A file that has the very bytes already is left as it is: an export may be repeated.
3. What is made may be read and written by those who may do so in the folder above, whatever umask we were started with.
4. A file appears whole or not at all, synced, under its name. All names are checked before the first is written; when a later one fails, the
   error names those that are there.

Blocking. If the process dies: at most a `.name.part` is left beside its place.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ArgumentError, Conflict, Denied, HostError
from .policy import Folder
from .system import flags

__all__ = ["Exported", "Leaving", "export"]

DEPTH_MAX = 32
COMPARED_BYTES = 1 << 20
_FOLDER = flags("O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")


@dataclass(frozen=True, slots=True)
class Leaving:
    name: str
    """One part of a path."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Exported:
    path: str
    size_bytes: int


def export(
    files: Sequence[Leaving], to: str, folders: Sequence[Folder], entropy: Callable[[int], bytes], *, overwrite: bool
) -> list[Exported]:
    root, parts = _way(to, folders)
    names = [_checked_name(file.name) for file in files]
    into = len(files) > 1 or to.endswith("/") or not parts or Path(to).is_dir()  # a hint: the walk decides what may be
    if not into:
        names = [parts.pop()]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ArgumentError(
            "argument.invalid",
            f"Several of the files are named {doubles[0]!r}. Export them one by one, each with a `to`.",
        )
    place = root.joinpath(*parts)
    done: list[Exported] = []
    with _opened(root, parts) as folder:
        targets = [_Target(folder, place, name) for name in names]
        for target, file in zip(targets, files, strict=True):
            target.check(file.data, overwrite=overwrite)
        for target, file in zip(targets, files, strict=True):
            try:
                target.put(file.data, f".{entropy(4).hex()}.part", overwrite=overwrite)
            except OSError as error:
                written = ", ".join(one.path for one in done) or "none"
                raise HostError(
                    "export.failed",
                    f"{place / target.name} cannot be written: {error.strerror}. Written before it: {written}.",
                ) from error
            done.append(Exported(str(place / target.name), len(file.data)))
    return done


def _way(to: str, folders: Sequence[Folder]) -> tuple[Path, list[str]]:
    """The shared folder that holds `to`, and the parts from there."""
    parts = to.split("/")
    if not to.startswith("/") or "\0" in to or ".." in parts or len(parts) > DEPTH_MAX + 2:
        raise ArgumentError(
            "path.outside", f"to is {to[:200]!r}. It is an absolute path in a folder shared as :rw, without `..`."
        )
    place = Path(to)
    held = [
        (folder, root)
        for folder in folders
        for root in {folder.path, folder.path.resolve()}
        if place.is_relative_to(root)
    ]
    folder, root = max(held, key=lambda pair: len(pair[1].parts), default=(None, place))
    if folder is None or not folder.writable:
        open_ones = ", ".join(str(one.path) for one in folders if one.writable)
        line = f"Shared so: {open_ones}." if open_ones else "None is."
        raise Denied(
            "export.denied",
            f"{to[:200]} is in no folder that is shared as :rw. {line} The user shares one with `agent-kernel mcp --folder DIR:rw`.",
        )
    return root, list(place.relative_to(root).parts)


def _checked_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode(errors="replace")) > 200:
        raise ArgumentError("path.outside", f"{name[:200]!r} is no name of a file. Give the file's whole path as `to`.")
    return name


@contextlib.contextmanager
def _opened(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """The folder beneath `root`, made where it is missing."""
    at = root
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("export.failed", f"The shared folder {root} cannot be opened: {error.strerror}.") from error
    try:
        for part in parts:
            at /= part
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folder)
                made = True
            below = os.open(part, _FOLDER, dir_fd=folder)
            if made:
                os.fchmod(below, os.fstat(folder).st_mode & 0o777)
            os.close(folder)
            folder = below
        yield folder
    except NotADirectoryError:  # of a link too, with O_DIRECTORY
        raise ArgumentError(
            "path.outside", f"{at} is a link or no folder, and is not gone through. Export to another place."
        ) from None
    except OSError as error:
        raise HostError("export.failed", f"{at} cannot be opened: {error.strerror}.") from error
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class _Target:
    folder: int
    place: Path
    name: str

    def check(self, data: bytes, *, overwrite: bool) -> None:
        try:
            facts = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(facts.st_mode):
            raise Conflict(
                "export.exists", f"{self.place / self.name} is no plain file, and is not replaced. Choose another `to`."
            )
        if not overwrite and not self._holds(data):
            raise self._exists()

    def put(self, data: bytes, ending: str, *, overwrite: bool) -> None:
        part = f".{self.name}"[:200] + ending
        descriptor = os.open(
            part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.folder
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), os.fstat(self.folder).st_mode & 0o666)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.rename(part, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
            else:
                os.link(part, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
        except FileExistsError:
            if not self._holds(data):
                raise self._exists() from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self.folder)
        os.fsync(self.folder)

    def _holds(self, data: bytes) -> bool:
        with contextlib.suppress(OSError):
            descriptor = os.open(
                self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder
            )
            with os.fdopen(descriptor, "rb") as file:
                facts = os.fstat(file.fileno())
                if stat.S_ISREG(facts.st_mode) and facts.st_size == len(data):
                    seen = memoryview(data)
                    return all(
                        file.read(COMPARED_BYTES) == seen[start : start + COMPARED_BYTES]
                        for start in range(0, len(data), COMPARED_BYTES)
                    )
        return False

    def _exists(self) -> Conflict:
        return Conflict(
            "export.exists", f"{self.place / self.name} is there already. Choose another `to`, or say overwrite=true."
        )
