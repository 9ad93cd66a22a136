"""`agent-kernel backup FILE`, `restore FILE`, `verify`: a state folder as one file and back, and whether either is whole.

    FILE    tar, gzip: `kernel.db`, `config.toml`, `skills/...`

Guarantees
1. A backup is one moment of the file of a kernel that may be running, and is checked before it has its name: FILE is whole or not there.
   It is for its owner's eyes only, as the state folder is.
2. Nothing is overwritten: neither a file by `backup`, nor a folder that has a state by `restore`.
3. `restore` believes nothing of FILE: regular files and folders of those names only, beneath the folder, checked before they get there.

If the process dies: a folder `.backup-*` or `.restore-*` is left beside what was to be made, and can be removed.
"""

import contextlib
import os
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from agent_kernel.base.errors import HostError
from agent_kernel.base.integrity import problems
from agent_kernel.base.store import look

__all__ = ["backup", "restore", "verified"]

STATE, BESIDE = "kernel.db", ("config.toml", "skills")
RESTORED_BYTES_MAX = 64 << 30
COPY_BYTES = 1 << 20


def verified(folder: Path) -> list[str]:
    """What is wrong with the state of a folder; empty when nothing is."""
    return look(folder, lambda db: list(problems(db)))


def backup(folder: Path, file: Path) -> list[str]:
    """Returns what was left out: links and the like among the skills, by their paths. Raises HostError where FILE exists, or the state is not whole."""
    if file.exists() or file.is_symlink():
        raise HostError("backup.exists", f"{file} is there already, and is not overwritten. Name another file.")
    with _beside(file, ".backup-") as place:
        copy = place / STATE
        look(folder, lambda db: _copied(db, copy))
        _check_whole(copy, "backup.damaged", f"{folder} is not backed up", "`agent-kernel verify` shows all.")
        packed = place / "packed"
        try:
            left_out = _pack(packed, [(copy, STATE), *((folder / name, name) for name in BESIDE)])
        except OSError as error:
            raise HostError("backup.failed", f"{folder} could not be read or {file} written: {error}.") from error
        try:
            os.link(packed, file)  # and not rename, which would overwrite what came meanwhile
        except FileExistsError:
            raise HostError("backup.exists", f"{file} is there already, and is not overwritten.") from None
        _sync(file.parent)
        return left_out


def restore(file: Path, folder: Path) -> None:
    """Raises HostError where the folder has a state already, or FILE is no backup that is whole."""
    if folder.exists() and any(folder.iterdir()):
        raise HostError(
            "restore.not_empty", f"{folder} is not empty. Name another folder with --state, or move that one away."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder, ".restore-") as place:
        try:
            with tarfile.open(file, "r:gz") as tar:
                _unpack(tar, place)
        except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
            raise HostError("restore.unreadable", f"{file} cannot be read as a backup: {error}.") from error
        _check_whole(place / STATE, "restore.damaged", f"{file} is not restored", "Nothing was changed.")
        for one in sorted(place.rglob("*"), reverse=True):
            _sync(one)
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
        _sync(folder.parent)


@contextlib.contextmanager
def _beside(target: Path, prefix: str) -> Iterator[Path]:
    """A private folder on the same file system."""
    try:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise HostError("state.read_only", f"{target.parent} cannot be written: {error.strerror}.") from error
    try:
        yield place
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    if not place.exists():
        return  # it has its name
    for one in sorted(place.rglob("*"), reverse=True):
        one.rmdir() if one.is_dir() and not one.is_symlink() else one.unlink()
    place.rmdir()


def _copied(db: sqlite3.Connection, copy: Path) -> None:
    """By SQLite's own backup, which sees one moment of a file that others write to."""
    with contextlib.closing(sqlite3.connect(copy)) as target:
        db.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # no log beside it


def _check_whole(path: Path, code: str, what: str, then: str) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            found = list(problems(db))
    except sqlite3.Error as error:
        found = [str(error)]
    if found:
        raise HostError(code, f"{what}: {found[0]}{f', and {len(found) - 1} more' if found[1:] else ''}. {then}")


def _pack(packed: Path, parts: list[tuple[Path, str]]) -> list[str]:
    """Regular files and folders, without whose they are; returns what is neither."""
    left_out: list[str] = []

    def plain(facts: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (facts.isreg() or facts.isdir()):
            left_out.append(facts.name)
            return None
        facts.uid = facts.gid = 0
        facts.uname = facts.gname = ""
        return facts

    private = os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(private, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as tar:
        for path, name in parts:
            if path.exists():
                tar.add(path, name, filter=plain)
    _sync(packed)
    return left_out


def _unpack(tar: tarfile.TarFile, place: Path) -> None:
    room = RESTORED_BYTES_MAX
    for facts in tar:
        path = PurePosixPath(facts.name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] not in {(STATE,), *((name,) for name in BESIDE)}:
            raise HostError(
                "restore.unreadable", f"It holds {facts.name!r}, which no backup does. Nothing was changed."
            )
        target = place / path
        if facts.isdir():
            target.mkdir(mode=0o700, exist_ok=True)
            continue
        room -= facts.size
        if not facts.isreg() or room < 0:
            raise HostError(
                "restore.unreadable", f"{facts.name!r} is no regular file, or too large. Nothing was changed."
            )
        source = tar.extractfile(facts)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = 0o700 if facts.mode & 0o100 and path.parts[0] == "skills" else 0o600
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            while source is not None and (data := source.read(COPY_BYTES)):
                file.write(data)
    if not (place / STATE).exists():
        raise HostError("restore.unreadable", f"It holds no {STATE}. Nothing was changed.")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
