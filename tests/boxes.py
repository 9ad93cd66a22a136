"""A sandbox of its own for one test: opened in a fresh state folder, closed whatever happens."""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants, Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.sandbox import Sandbox
from agent_kernel.scheduler import Scheduler

T = TypeVar("T")

BOTH = ("full", "confined")


def boxed(
    folder: Path,
    tier: str | None,
    body: Callable[[Sandbox], Awaitable[T]],
    *,
    shared: tuple[Path, ...] = (),
    **limits: Any,
) -> T:
    """Run `body(sandbox)`. What the tier needs must be there: a host that lacks it fails these tests by name, and does not skip them."""

    async def run() -> T:
        ports, bounds = Ports.real(), dataclasses.replace(Limits(), **limits)
        scheduler = Scheduler(slots=8, queue_max=64)
        policy = Policy(grants=Grants(folders=tuple(map(Folder, shared))))
        store = await Store.open(folder / "state", ports=ports, limits=bounds, migrations=(), spawn=scheduler.spawn)
        try:
            sandbox = await Sandbox.open(
                store=store, ports=ports, limits=bounds, policy=policy, scheduler=scheduler, tier=tier
            )
            try:
                assert tier is None or sandbox.tier == tier, sandbox.refusals
                async with asyncio.timeout(120):
                    return await body(sandbox)
            finally:
                await sandbox.close()
        finally:
            await store.close()
            await scheduler.close()

    return asyncio.run(run())


def run_code(
    folder: Path,
    tier: str,
    code: str,
    *,
    language: str = "python",
    limits: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    async def body(sandbox: Sandbox) -> Any:
        return await sandbox.run(code, language=language, **options)

    return boxed(folder, tier, body, **(limits or {}))


def processes_with(marker: str) -> list[int]:
    """Processes of the whole machine whose command line or name holds `marker`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/comm").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(int(name))
    return found
