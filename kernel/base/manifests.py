"""What is in one skill: its files with sizes and digests, read again only when a stat of them differs.

A skill is the regular files below its folder. Links to files inside are followed; other links, names that are not UTF-8 and what is no
file are left out, with a warning. Folders of version control and of caches (`SKIPPED`) do not belong to it.

Guarantees
1. The digests of `Contents` are of the very bytes beside them. Nothing is read through a link that leads out of the skill, and nothing
   that is not a regular file when it is open: a pipe in its place is not waited for.
2. A skill past the limits is `skill.too_large`; it is not read further than to there.
3. `Manifests.of` gives the same object again when no folder and no file of the skill has changed. What was stamped less than two seconds
   before it was read is read again: file systems stamp times in ticks.
4. `revision` names a tree: equal revisions are equal paths, sizes and bytes.

Not here: which folders are skills (roots.py), versions that are gone from the disk (versions.py). Nothing is written.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import system
from .errors import LimitExceeded, NotFound
from .limits import Limits

__all__ = ["SKIPPED", "Contents", "File", "Manifest", "Manifests", "Signature", "beneath", "contents_of", "file_of", "measured", "racy", "revision_of", "signature"]  # fmt: skip

RACY_NS = 2_000_000_000
DEPTH_MAX = 16
SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv"})

Signature = tuple[int, int, int, int]


class File(NamedTuple):
    path: str
    size_bytes: int
    digest: str


class Manifest(NamedTuple):
    """One version of a skill without its bytes."""

    revision: str
    files: tuple[File, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """The bytes of one skill at one moment, and the digest that names them together."""

    revision: str
    files: tuple[File, ...]
    data: dict[str, bytes]
    warnings: tuple[str, ...]


class _Known(NamedTuple):
    manifest: Manifest
    signatures: tuple[tuple[str, Signature], ...]
    """Of every folder and file of the skill."""


class Manifests:
    """Those of many skills, the last `skill_manifests_kept` that were read, kept as long as nothing of the skill has changed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[str, _Known] = {}

    def of(self, folder: Path, now_ns: int) -> Manifest:
        """LimitExceeded past the limits; OSError when the folder cannot be read."""
        key = str(folder)
        known = self._known.get(key)
        if known is not None and _all_still(known.signatures):
            return known.manifest
        seen: dict[str, os.stat_result] = {}
        contents = contents_of(folder, self._limits, seen)
        manifest = Manifest(contents.revision, contents.files, contents.warnings)
        self._known.pop(key, None)
        if not any(racy(facts, now_ns) for facts in seen.values()):
            self._known[key] = _Known(manifest, tuple((path, signature(facts)) for path, facts in seen.items()))
        while len(self._known) > self._limits.skill_manifests_kept:  # hosts come and go, and with them their folders
            self._known.pop(next(iter(self._known)), None)
        return manifest


def _all_still(signatures: tuple[tuple[str, Signature], ...]) -> bool:
    try:
        for path, known in signatures:
            facts = os.stat(path)  # noqa: PTH116  a thousand of them in a few milliseconds
            if (facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino) != known:
                return False
    except OSError:
        return False
    return True


def contents_of(folder: Path, limits: Limits, seen: dict[str, os.stat_result] | None = None) -> Contents:
    """Read the whole skill, once. `seen` takes the stat of every folder and file, from before it was read."""
    data: dict[str, bytes] = {}
    warnings: list[str] = []
    left = limits.skill_bytes_max
    for name, path in _files(str(folder), warnings, {} if seen is None else seen):
        if len(data) >= limits.skill_files_max:
            raise LimitExceeded("skill.too_large", f"{folder} has more than {limits.skill_files_max} files.")
        found = _bytes_of(path, left)
        if found is None:
            warnings.append(f"{name} is left out: it is no regular file")
            continue
        left -= len(found)
        if left < 0:
            raise LimitExceeded("skill.too_large", f"{folder} has more than {limits.skill_bytes_max} bytes.")
        data[name] = found
    files = tuple(File(name, len(data[name]), hashlib.sha256(data[name]).hexdigest()) for name in sorted(data))
    return Contents(revision_of(files), files, data, tuple(warnings))


def measured(folder: Path, limits: Limits) -> list[str]:
    """What hosts would leave out of the skill, without reading a file. LimitExceeded past the limits."""
    warnings: list[str] = []
    seen: dict[str, os.stat_result] = {}
    files = [path for _, path in _files(str(folder), warnings, seen)]
    size = sum(seen[path].st_size for path in files)
    if len(files) > limits.skill_files_max or size > limits.skill_bytes_max:
        raise LimitExceeded(
            "skill.too_large",
            f"{folder} has {len(files)} files and {size} bytes; at most {limits.skill_files_max} and {limits.skill_bytes_max}.",
        )
    return warnings


def file_of(folder: Path, manifest: Manifest, path: str) -> bytes | None:
    """The bytes of one file as its manifest has it; None when they are others by now."""
    known = next((file for file in manifest.files if file.path == path), None)
    if known is None:
        raise NotFound("skill.file_unknown", f"{folder.name} has no file {path!r}.")
    full = folder / path
    if not beneath(full, folder):
        return None
    data = _bytes_of(str(full), known.size_bytes)
    return data if data is not None and hashlib.sha256(data).hexdigest() == known.digest else None


def revision_of(files: tuple[File, ...]) -> str:
    """One digest for a tree: of its sorted paths, sizes and digests."""
    lines = "".join(f"{file.path}\0{file.size_bytes}\0{file.digest}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _bytes_of(path: str, most: int) -> bytes | None:
    """At most one byte more than `most`; None of what is no regular file."""
    fd = os.open(path, os.O_RDONLY | system.flags("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"))
    with open(fd, "rb") as file:  # noqa: PTH123
        return file.read(most + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else None


def _files(top: str, warnings: list[str], seen: dict[str, os.stat_result]) -> Iterator[tuple[str, str]]:
    """(name, path) of what belongs to the skill."""
    waiting = [("", top, 0)]
    while waiting:
        prefix, folder, depth = waiting.pop()
        seen[folder] = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
        for entry in here:
            name = prefix + entry.name
            if not _is_utf8(entry.name):
                warnings.append(f"{name!r} is left out: its name is not UTF-8")
            elif entry.is_symlink() and not (beneath(Path(entry.path), Path(top)) and entry.is_file()):
                warnings.append(f"{name} is left out: a link to a folder, or one that leads out of the skill")
            elif entry.is_dir():
                if entry.name in SKIPPED:
                    continue
                if depth < DEPTH_MAX:
                    waiting.append((f"{name}/", entry.path, depth + 1))
                else:
                    warnings.append(f"{name} is left out: it is nested deeper than {DEPTH_MAX} folders")
            elif entry.is_file():
                seen[entry.path] = os.stat(entry.path)  # noqa: PTH116  of what a link leads to
                yield name, entry.path


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def beneath(path: Path, top: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(top.resolve())
    except (OSError, RuntimeError):
        return False


def signature(facts: os.stat_result) -> Signature:
    return facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino


def racy(facts: os.stat_result, now_ns: int) -> bool:
    """Stamped so short before `now_ns` that a change after it may bear the same stamp."""
    return now_ns - max(facts.st_mtime_ns, facts.st_ctime_ns) < RACY_NS
