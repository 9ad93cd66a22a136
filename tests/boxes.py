"""A sandbox of its own for one test: opened in a fresh state folder, closed whatever happens."""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from agent_kernel.base.audit import MIGRATIONS, Audit
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Folder, Grants, Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.sandbox import Sandbox
from agent_kernel.scheduler import Scheduler

T = TypeVar("T")

BOTH = ("full", "confined")


class Opened:
    """A sandbox with the store and the tasks it stands on."""

    def __init__(
        self,
        folder: Path,
        tier: str | None,
        *,
        shared: tuple[Path, ...] = (),
        tier_must_be_had: bool = True,
        **limits: Any,
    ) -> None:
        self.folder, self.tier, self.shared, self.tier_must_be_had = folder, tier, shared, tier_must_be_had
        self.limits = dataclasses.replace(Limits(), **limits)

    async def open(self) -> Sandbox:
        """What the tier needs must be there: a host that lacks it fails these tests by name, and does not skip them."""
        ports, limits = Ports.real(), self.limits
        self.scheduler = Scheduler(slots=8, queue_max=64)
        policy = Policy(grants=Grants(folders=tuple(map(Folder, self.shared))))
        self.store = await Store.open(
            self.folder / "state", ports=ports, limits=limits, migrations=[MIGRATIONS], spawn=self.scheduler.spawn
        )
        try:
            self.audit = Audit(self.store, ports, limits)
            await self.audit.open(self.scheduler.spawn)
            self.sandbox = await Sandbox.open(
                store=self.store, ports=ports, limits=limits, policy=policy, scheduler=self.scheduler, audit=self.audit,
                tier=self.tier,
            )  # fmt: skip
        except BaseException:
            await self.store.close()
            raise
        if self.tier is not None and self.tier_must_be_had:
            assert self.sandbox.tier == self.tier, self.sandbox.refusals
        return self.sandbox

    async def close(self) -> None:
        await self.sandbox.close()
        await self.audit.close()
        await self.store.close()
        await self.scheduler.close()


def boxed(
    folder: Path, tier: str | None, body: Callable[[Sandbox], Awaitable[T]], *, patience_s: float = 120, **options: Any
) -> T:
    """Run `body(sandbox)` on a sandbox of its own."""

    async def run() -> T:
        opened = Opened(folder, tier, **options)
        sandbox = await opened.open()
        try:
            async with asyncio.timeout(patience_s):
                return await body(sandbox)
        finally:
            await opened.close()

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
    for place in Path("/proc").iterdir():
        name = place.name
        if name.isdigit() and int(name) != os.getpid():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/comm").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(int(name))
    return found
