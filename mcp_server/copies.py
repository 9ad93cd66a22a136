"""Copies of result files that a program on this machine can open: `local_path` beside a file's `uri`.

    STATE/files/<sandbox id>/<path>      read-only, as long as the uri lives

A host's own reader shows a picture or opens a table by its path; a model need not carry it. Only a client of this machine and user is told
one, since nobody else could open it.

Guarantees
1. A copy lies beneath STATE/files, whatever a guest called its file: the path is checked as one that comes in (base/workspace.py).
2. A copy that cannot be made costs the `local_path` and not the reply.
3. No copy outlives its uri by more than a day: they are swept at the start of a connection and beside later copies.

If the process dies a copy may be cut short; the next reply that names the file makes it again under the same path.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.errors import KernelError
from agent_kernel.base.ports import LOCAL
from agent_kernel.base.workspace import checked_path, clear

__all__ = ["Copies"]

log = logging.getLogger("agent_kernel.mcp")

SWEEP_S = 3600.0


class Copies:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._root = kernel.store.folder / "files"
        self._swept_at = -SWEEP_S

    async def beside(self, files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The files of a result, with `local_path` where there is a copy."""
        found = [await self._copied(file) for file in files]
        now = self._kernel.ports.clock.monotonic()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            await asyncio.to_thread(self._sweep)
        return found

    async def _copied(self, file: Mapping[str, Any]) -> dict[str, Any]:
        uri = file.get("uri", "")
        kept = await self._kernel.store.artifact(LOCAL, uri) if uri.startswith("sandbox://") else None
        try:
            path = self._root / uri.removeprefix("sandbox://").partition("/")[0] / checked_path(str(file["path"]))
        except KernelError:
            kept = None
        if kept is None:
            return dict(file)
        try:
            await asyncio.to_thread(_write, path, kept.data)
        except OSError as error:  # a full disk: the result has been had, and its uri opens
            log.warning("%s could not be written, so that %s has no local_path: %s", path, uri, error)
            return dict(file)
        return {**file, "local_path": str(path)}

    def _sweep(self) -> None:
        oldest = self._kernel.ports.clock.now() - self._kernel.limits.artifact_ttl_s
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # swept by another connection
                if folder.stat().st_mtime < oldest:
                    clear(folder)


def _write(path: Path, data: bytes) -> None:
    """Nobody but this user's processes comes here, so the parts of the way are ours."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:200]}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)
