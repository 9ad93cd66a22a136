"""Folders with skills in them: which there are, each looked at again only when it has changed.

A root is a folder that somebody named. Below it, at most four deep, every folder with a `SKILL.md` is a skill; what lies inside a skill
belongs to it and is not searched for more. A look at a root costs one stat for each folder and each SKILL.md seen before: a folder whose
time of change stands still has the same entries, a SKILL.md with the same time, size and inode the same text.

Guarantees
1. Nothing is read through a symbolic link that leads out of its root.
2. At most `FOLDERS_MAX` folders of a root are opened; what was left out is reported.
3. A folder that cannot be read is reported, not raised.
4. `look` gives the same object again when nothing has changed. What was stamped less than two seconds before a look is looked at again by
   the next one: file systems stamp times in ticks.

Not here: what a SKILL.md says (skillmd.py), the other files of a skill (manifests.py).
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .manifests import SKIPPED, Signature, beneath, racy, signature

__all__ = ["SKILL_FILES", "Found", "Root", "View", "look"]

DEPTH_MAX = 4
FOLDERS_MAX = 20_000
"""Of one root: ten thousand skills with a folder above each. Guides for hosts say 2,000, for a project that may hold anything."""
SKILL_FILES = ("SKILL.md", "skill.md")
SKILL_FILE_BYTES_MAX = 1024 * 1024


class Found(NamedTuple):
    folder: Path
    text: str | None
    """The SKILL.md; None when it cannot be read."""
    problem: str | None


@dataclass(slots=True)
class Root:
    """One place where skills are looked for, with what was seen there the last time."""

    path: Path
    view: "View" = field(default_factory=lambda: View((), ()))
    settled: bool = False
    """A stat of what was seen tells whether anything has changed."""
    fresh: set[str] = field(default_factory=set)
    """What had been stamped just before the last look."""
    looked_at: float = 0.0
    cost_s: float = 0.0
    """When the last look ended, by the clock of whoever looks, and how long it took."""
    folders: dict[str, tuple[Signature, tuple[str, ...]]] = field(default_factory=dict)
    """Folder -> its signature and the names of the folders in it."""
    skills: dict[str, tuple[str, Signature, Found]] = field(default_factory=dict)
    """Skill folder -> its SKILL.md with the signature of that, and what was read."""


class View(NamedTuple):
    """The skills below a root, by path, and what was left out. The same object as long as nothing has changed."""

    skills: tuple[Found, ...]
    left_out: tuple[str, ...]


def look(root: Root, now_ns: int) -> View:
    if not root.settled or not _unchanged(root):
        view = _walked(root, now_ns)
        root.view = root.view if view == root.view else view
    return root.view


def _unchanged(root: Root) -> bool:
    """One stat for each folder and each SKILL.md; plain strings, since there may be thousands and somebody waits."""
    try:
        return all(signature(os.stat(path)) == known for path, (known, _) in root.folders.items()) and all(  # noqa: PTH116
            signature(os.stat(path)) == known  # noqa: PTH116
            for path, known, _ in root.skills.values()
        )
    except OSError:
        return False


def _walked(root: Root, now_ns: int) -> View:
    folders: dict[str, tuple[Signature, tuple[str, ...]]] = {}
    skills: dict[str, tuple[str, Signature, Found]] = {}
    left_out: list[str] = []
    fresh: set[str] = set()
    settled = True
    waiting = [(str(root.path), 0)]
    while waiting:
        folder, depth = waiting.pop()
        if len(folders) + len(skills) >= FOLDERS_MAX:
            left_out.append(f"{root.path}: more than {FOLDERS_MAX} folders; the rest was not searched")
            break
        try:
            facts, found = _skill_in(root, folder)
            if found is not None:
                skills[folder] = found
                settled &= found[0].endswith(
                    SKILL_FILES[0]
                )  # else the better one may come without a stamp that we look at
            else:
                facts, folders[folder] = _folders_in(root, folder)
        except (FileNotFoundError, NotADirectoryError):
            settled = False
            continue
        except OSError as error:
            left_out.append(f"{folder} cannot be searched: {error.strerror}")
            settled = False
            continue
        if racy(facts, now_ns):
            fresh.add(folder)
        if found is None and depth < DEPTH_MAX:
            waiting += [(f"{folder}/{name}", depth + 1) for name in reversed(folders[folder][1])]
    root.folders, root.skills, root.fresh = folders, skills, fresh
    root.settled = settled and not fresh
    return View(tuple(found for _, _, found in skills.values()), tuple(left_out))


def _skill_in(root: Root, folder: str) -> tuple[os.stat_result, tuple[str, Signature, Found] | None]:
    for name in SKILL_FILES:
        path = f"{folder}/{name}"
        try:
            facts = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        known = root.skills.get(folder)
        if known is not None and known[:2] == (path, signature(facts)) and folder not in root.fresh:
            return facts, known
        return facts, (path, signature(facts), _read(root.path, Path(folder), Path(path), facts))
    return os.stat(folder), None  # noqa: PTH116


def _read(within: Path, folder: Path, path: Path, facts: os.stat_result) -> Found:
    if not stat.S_ISREG(facts.st_mode):
        return Found(folder, None, f"{path.name} is not a file")
    if not beneath(path, within):
        return Found(folder, None, f"{path.name} is a link that leads out of {within}")
    if facts.st_size > SKILL_FILE_BYTES_MAX:
        return Found(folder, None, f"{path.name} has {facts.st_size} bytes; at most {SKILL_FILE_BYTES_MAX} are read")
    try:
        return Found(folder, path.read_bytes().decode(), None)
    except UnicodeDecodeError as error:
        return Found(folder, None, f"{path.name} is not UTF-8 (byte {error.start})")
    except OSError as error:
        return Found(folder, None, f"{path.name} cannot be read: {error.strerror}")


def _folders_in(root: Root, folder: str) -> tuple[os.stat_result, tuple[Signature, tuple[str, ...]]]:
    facts = os.stat(folder)  # noqa: PTH116
    known = root.folders.get(folder)
    if known is not None and known[0] == signature(facts) and folder not in root.fresh:
        return facts, known
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name not in SKIPPED and _is_folder(e, root.path)]
    return facts, (signature(facts), tuple(sorted(names)))


def _is_folder(entry: "os.DirEntry[str]", within: Path) -> bool:
    try:
        return entry.is_dir() and (not entry.is_symlink() or beneath(Path(entry.path), within))
    except OSError:
        return False
