"""Skills as plain folders with a lock: out of the store into a folder that any host reads, and back.

    DIR/<name>/SKILL.md, ...       the files, as they were written
    DIR/skills-lock.json           {"version": 1, "skills": {name: {source, sourceType, skillPath, computedHash, revision}}}

The file is the one of the `skills` command line: `computedHash` is SHA-256 over path and bytes of every file, in the order in which
JavaScript's localeCompare sorts the paths. `revision` is ours.

Guarantees
1. What is exported and imported again has the same revision, byte for byte.
2. Nothing is overwritten: a folder that is there is refused, unless it holds this very version. Entries of other skills in the lock stay.
3. A folder whose files are not those of its lock is refused, and so is a lock that cannot be read.

Blocking. If the process dies: a half-written folder has another name; the lock is replaced as a whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import manifests, versions
from .errors import ArgumentError, Conflict, HostError
from .limits import Limits
from .versions import Tree

__all__ = ["LOCK", "bring", "computed_hash", "put"]

LOCK = "skills-lock.json"
ORDER = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"
"""Of localeCompare, for ASCII; a capital comes after its small letter when all else is equal."""


def computed_hash(data: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path in sorted(data, key=_collated):
        digest.update(path.encode())
        digest.update(data[path])
    return digest.hexdigest()


def _collated(path: str) -> tuple[list[int], str]:
    ranks = [ORDER.find(char) if char.lower() in ORDER else len(ORDER) + ord(char) for char in path.lower()]
    return ranks, path.swapcase()


def put(to: Path, name: str, tree: Tree, source: str) -> Path:
    """Write the version to `to`/`name` and into the lock there; the folder."""
    folder = to / name
    try:
        to.mkdir(parents=True, exist_ok=True)
        lock = _lock_of(to)
        if folder.is_symlink() or folder.exists():
            if folder.is_symlink() or manifests.contents_of(folder, Limits()).revision != tree.revision:
                raise Conflict(
                    "skill.exists",
                    f"{folder} is there already and holds other files. Move it away, or export elsewhere.",
                )
        else:
            fresh = to / f".{name}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            versions.written(fresh, tree, mode=0o644)
            fresh.rename(folder)
        lock["skills"][name] = {
            "source": source, "sourceType": "local", "skillPath": f"{name}/SKILL.md", "computedHash": computed_hash(tree.data),
            "revision": tree.revision,
        }  # fmt: skip
        lock["skills"] = dict(sorted(lock["skills"].items()))
        fresh_lock = to / f".{LOCK}.new"
        fresh_lock.write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
        os.replace(fresh_lock, to / LOCK)  # noqa: PTH105
    except OSError as error:
        raise HostError("skill.export", f"{folder} cannot be written: {error}.") from error
    return folder


def bring(folder: Path, limits: Limits) -> Tree:
    """The files of a skill's folder, as the lock beside it has them where there is one."""
    if not folder.is_dir():
        raise ArgumentError("skill.unknown", f"{folder} is no folder. Name the folder with the SKILL.md in it.")
    try:
        contents = manifests.contents_of(folder, limits)
        lock = _lock_of(folder.parent)
    except OSError as error:
        raise HostError("skill.unreadable", f"{folder} cannot be read: {error}.") from error
    if contents.warnings:
        raise ArgumentError("skill.broken", f"{folder}: {contents.warnings[0]}. Nothing was imported.")
    wanted = lock["skills"].get(folder.name, {}).get("computedHash")
    found = computed_hash(contents.data)
    if wanted not in (None, found):
        raise Conflict(
            "skill.lock_mismatch",
            f"{folder} is not what {folder.parent / LOCK} says: its hash is {found[:12]}, not {str(wanted)[:12]}. Somebody changed it; look"
            " at it, then remove its entry from the lock to take it as it is.",
        )
    return Tree(contents.revision, contents.files, contents.data)


def _lock_of(folder: Path) -> dict[str, Any]:
    path = folder / LOCK
    if not path.exists():
        return {"version": 1, "skills": {}}
    try:
        lock = json.loads(path.read_text(encoding="utf8"))
        if lock["version"] != 1 or not all(isinstance(entry, dict) for entry in lock["skills"].values()):
            lock = None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        lock = None
    if lock is None:
        raise ArgumentError("skill.lock_broken", f"{path} is no lock of version 1. Mend or remove it.")
    return dict(lock)
