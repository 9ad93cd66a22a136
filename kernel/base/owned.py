"""Folders outside the state folder that must not outlive their kernel: each is locked (flock) by the process that made it.

    folder = Owned.make(above, "agent-kernel-scratch-", entropy, mode=0o711); folder.path; folder.release()
    for path in abandoned(above, prefix): ...                 those whose process is dead, each locked while it is looked at

A lock goes with its process, however that ends, and no child inherits it. So whoever finds a folder of that name and can lock it knows
that nobody uses it, whichever kernel made it and whatever its state folder was.

Guarantees
1. A folder that `make` returned is in nobody's `abandoned` while this process lives.
2. Only real folders of our own uid are ever named, in a place that others may write to too: no links, no files, no other user's.

If this process dies, what it made is abandoned. The same holds for a moment between making a folder and locking it: then another is made.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from . import system

__all__ = ["Owned", "abandoned"]

TRIES = 8


class Owned:
    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, above: Path, prefix: str, entropy: Callable[[int], bytes], *, mode: int = 0o700) -> Self:
        for left in reversed(range(TRIES)):
            path = above / f"{prefix}{entropy(8).hex()}"
            path.mkdir(mode=0o700)
            try:
                self = cls(path, _lock(path))
                path.chmod(mode)  # and it is still there
            except (FileNotFoundError, BlockingIOError):
                if not left:
                    raise
            else:
                return self
        raise AssertionError("the last try returns or raises")

    def release(self) -> None:
        """Whatever is still in it is anybody's to remove. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def abandoned(above: Path, prefix: str) -> Iterator[Path]:
    for path in above.glob(f"{prefix}*"):
        try:
            lock = _lock(path)
        except OSError:
            continue  # its process lives, somebody else looks at it, or it is gone
        try:
            if system.ours(os.fstat(lock)):
                yield path
        finally:
            os.close(lock)


def _lock(path: Path) -> int:
    folder = os.open(path, system.flags("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))
    try:
        system.lock(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(folder)
        raise
    return folder
