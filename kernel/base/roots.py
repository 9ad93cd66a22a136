"""Folders with skills in them: which there are, what is in one, each looked at again only when it has changed.

A root is a folder that somebody named. Below it, at most four deep, every folder with a `SKILL.md` is a skill; what lies inside a skill
belongs to it and is not searched for more. A look at a root costs one stat for each folder and each SKILL.md seen before: a folder whose
time of change stands still has the same entries, a SKILL.md with the same time, size and inode the same text.

Guarantees
1. Nothing is read through a symbolic link that leads out of its root (a skill folder, a SKILL.md) or out of its skill (any other file).
2. At most `FOLDERS_MAX` folders of a root are opened; what was left out is reported.
3. A folder that cannot be read is reported, not raised.
4. `look` gives the same object again when nothing has changed. A change within two seconds before a look counts as one: file
   systems stamp times in ticks.

Not here: what a SKILL.md says (skillmd.py), what is kept of it (skills.py).
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import LimitExceeded
from .limits import Limits

__all__ = ["Contents", "File", "Found", "Root", "View", "contents_of", "look"]

DEPTH_MAX = 4
FOLDERS_MAX = 2000
RACY_NS = 2_000_000_000
SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv"})
SKILL_FILES = ("SKILL.md", "skill.md")
SKILL_FILE_BYTES_MAX = 1024 * 1024

Signature = tuple[int, int, int, int]


class Found(NamedTuple):
    folder: Path
    text: str | None
    """The SKILL.md; None when it cannot be read."""
    problem: str | None


class File(NamedTuple):
    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The bytes of one skill at one moment, and the digest that names them together."""

    revision: str
    files: tuple[File, ...]
    data: dict[str, bytes]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class Root:
    """One place where skills are looked for, with what was seen there the last time."""

    path: Path
    origin: str
    trust: str
    view: "View" = field(default_factory=lambda: View((), ()))
    folders: dict[str, tuple[Signature, tuple[str, ...]]] = field(default_factory=dict)
    """Folder -> its signature and the names of the folders in it."""
    skills: dict[str, tuple[str, Signature, Found]] = field(default_factory=dict)
    """Skill folder -> its SKILL.md with the signature of that, and what was read."""


class View(NamedTuple):
    """The skills below a root, by path, and what was left out. The same object as long as nothing has changed."""

    skills: tuple[Found, ...]
    left_out: tuple[str, ...]


def look(root: Root, now_ns: int) -> View:
    if not root.folders or not _unchanged(root, now_ns):
        root.view = _walked(root, now_ns)
    return root.view


def _unchanged(root: Root, now_ns: int) -> bool:
    """One stat for each folder and each SKILL.md; plain strings, since there may be thousands and somebody waits."""
    try:
        return all(_is_still(path, signature, now_ns) for path, (signature, _) in root.folders.items()) and all(
            _is_still(path, signature, now_ns) for path, signature, _ in root.skills.values()
        )
    except OSError:
        return False


def _is_still(path: str, signature: Signature, now_ns: int) -> bool:
    facts = os.stat(path)  # noqa: PTH116
    return (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino) == signature and not _racy(facts, now_ns)


def _walked(root: Root, now_ns: int) -> View:
    folders: dict[str, tuple[Signature, tuple[str, ...]]] = {}
    skills: dict[str, tuple[str, Signature, Found]] = {}
    left_out: list[str] = []
    waiting = [(root.path, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if len(folders) + len(skills) >= FOLDERS_MAX:
            left_out.append(f"{root.path}: more than {FOLDERS_MAX} folders; the rest was not searched")
            break
        skill = _skill_in(root, folder, now_ns)
        if skill is not None:
            skills[str(folder)] = skill
            continue
        try:
            folders[str(folder)] = here = _folders_in(root, folder, now_ns)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            left_out.append(f"{folder} cannot be searched: {error.strerror}")
            continue
        if depth < DEPTH_MAX:
            waiting += [(folder / name, depth + 1) for name in reversed(here[1])]
    root.folders, root.skills = folders, skills
    return View(tuple(found for _, _, found in skills.values()), tuple(left_out))


def _skill_in(root: Root, folder: Path, now_ns: int) -> tuple[str, Signature, Found] | None:
    for name in SKILL_FILES:
        path = folder / name
        try:
            facts = path.stat()
        except OSError:
            continue
        known = root.skills.get(str(folder))
        if known is not None and known[:2] == (str(path), _signature(facts)) and not _racy(facts, now_ns):
            return known
        return str(path), _signature(facts), _read(root.path, folder, path, facts)
    return None


def _read(within: Path, folder: Path, path: Path, facts: os.stat_result) -> Found:
    if not stat.S_ISREG(facts.st_mode):
        return Found(folder, None, f"{path.name} is not a file")
    if not _beneath(path, within):
        return Found(folder, None, f"{path.name} is a link that leads out of {within}")
    if facts.st_size > SKILL_FILE_BYTES_MAX:
        return Found(folder, None, f"{path.name} has {facts.st_size} bytes; at most {SKILL_FILE_BYTES_MAX} are read")
    try:
        return Found(folder, path.read_bytes().decode(), None)
    except UnicodeDecodeError as error:
        return Found(folder, None, f"{path.name} is not UTF-8 (byte {error.start})")
    except OSError as error:
        return Found(folder, None, f"{path.name} cannot be read: {error.strerror}")


def _folders_in(root: Root, folder: Path, now_ns: int) -> tuple[Signature, tuple[str, ...]]:
    facts = folder.stat()
    known = root.folders.get(str(folder))
    if known is not None and known[0] == _signature(facts) and not _racy(facts, now_ns):
        return known
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name not in SKIPPED and _is_folder(e, root.path)]
    return _signature(facts), tuple(sorted(names))


def _is_folder(entry: "os.DirEntry[str]", within: Path) -> bool:
    try:
        return entry.is_dir() and (not entry.is_symlink() or _beneath(Path(entry.path), within))
    except OSError:
        return False


# --- the files of one skill


def contents_of(folder: Path, limits: Limits) -> Contents:
    """Read the whole skill, once: the digests are of the very bytes that are returned."""
    data: dict[str, bytes] = {}
    warnings: list[str] = []
    size = 0
    for path, name in _files(folder, folder, warnings):
        if len(data) >= limits.skill_files_max:
            raise LimitExceeded("skill.too_large", f"{folder} has more than {limits.skill_files_max} files.")
        size += path.stat().st_size
        if size > limits.skill_bytes_max:
            raise LimitExceeded("skill.too_large", f"{folder} has more than {limits.skill_bytes_max} bytes.")
        data[name] = path.read_bytes()
    files = tuple(File(name, len(data[name]), hashlib.sha256(data[name]).hexdigest()) for name in sorted(data))
    return Contents(revision_of(files), files, data, tuple(warnings))


def revision_of(files: tuple[File, ...]) -> str:
    """One digest for a tree: of its sorted paths, sizes and digests."""
    lines = "".join(f"{file.path}\0{file.size_bytes}\0{file.digest}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _files(top: Path, folder: Path, warnings: list[str], depth: int = 0) -> Iterator[tuple[Path, str]]:
    with os.scandir(folder) as entries:
        here = sorted(entries, key=lambda entry: entry.name)
    for entry in here:
        path = Path(entry.path)
        name = path.relative_to(top).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            warnings.append(f"{name!r} is left out: its name is not UTF-8")
            continue
        if entry.is_symlink() and not (_beneath(path, top) and entry.is_file()):
            warnings.append(f"{name} is left out: a link to a folder, or one that leads out of the skill")
        elif entry.is_dir():
            if entry.name not in SKIPPED and depth < 16:
                yield from _files(top, path, warnings, depth + 1)
        elif entry.is_file():
            yield path, name


def signature_of(folder: Path, now_ns: int) -> tuple[tuple[str, Signature], ...] | None:
    """Names, sizes, times and inodes of a skill's files: equal means unchanged. None when something changed just now."""
    signatures = []
    for path, name in _files(folder, folder, []):
        facts = path.stat()
        if _racy(facts, now_ns):
            return None
        signatures.append((name, _signature(facts)))
    return tuple(signatures)


def _beneath(path: Path, top: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(top.resolve())
    except (OSError, RuntimeError):
        return False


def _signature(facts: os.stat_result) -> Signature:
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino


def _racy(facts: os.stat_result, now_ns: int) -> bool:
    return now_ns - max(facts.st_mtime_ns, facts.st_ctime_ns) < RACY_NS
