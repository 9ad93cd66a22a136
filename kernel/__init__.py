"""Agent Kernel: sandbox, durable runs, memory, skills and orchestration behind one door.

    async with Kernel.open("state") as k:
        r = await k.sandbox.run("print(6*7)")
        h = await k.runs.start("async def main(input): return input", input={"x": 1})
        print(await h.result())

Guarantees
1. One kernel per state folder: a taken one is refused with `state.locked` and the owner's pid.
2. When `open` returns, runs that were working when the last kernel ended are going on by themselves.
3. After the `async with`, no process, task or descriptor of this kernel is left; the journal has what the runs were doing.

Nothing here decides anything: this file puts the parts together, in the order in which they stand on each other.
If the process dies: the state folder is complete at any moment; open it again.
"""

import dataclasses
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from .base.audit import MIGRATIONS as AUDIT
from .base.audit import Audit
from .base.errors import (
    ArgumentError,
    CallerError,
    Conflict,
    Denied,
    GuestError,
    HostError,
    KernelError,
    KernelFault,
    LimitExceeded,
    NotFound,
    Overloaded,
)
from .base.limits import Limits
from .base.policy import Folder, Grants, Policy, load_policy
from .base.ports import LOCAL, Ports
from .base.stamps import MIGRATIONS as STAMPS
from .base.store import Store
from .journal import MIGRATIONS as JOURNAL
from .journal import Journal
from .memory import MIGRATIONS as MEMORY
from .memory import Memory
from .orchestration import Handle, Runs
from .sandbox import Result, Sandbox
from .scheduler import Load, Scheduler
from .skills import MIGRATIONS as SKILLS
from .skills import Skills

__all__ = [
    "LOCAL",
    "ArgumentError",
    "CallerError",
    "Conflict",
    "Denied",
    "Folder",
    "Grants",
    "GuestError",
    "Handle",
    "HostError",
    "Kernel",
    "KernelError",
    "KernelFault",
    "LimitExceeded",
    "Limits",
    "NotFound",
    "Overloaded",
    "Policy",
    "Ports",
    "Result",
    "Status",
    "open_memory",
    "open_skills",
]

MIGRATIONS = (JOURNAL, MEMORY, SKILLS, AUDIT, STAMPS)
SCHEMA = max(number for migrations in MIGRATIONS for number in migrations)
"""The version of the state folder's file."""
__version__ = "0.1.0"
"""As in pyproject.toml. Asking the installed metadata for it would be a quarter of this import."""


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """A running kernel at a glance."""

    pid: int
    version: str
    state: str
    tier: str
    layers: tuple[str, ...]
    degraded: tuple[str, ...]
    runs: Mapping[str, int]
    """Those that have not ended, by status."""
    load: Load
    sandboxes: Mapping[str, int]
    """`in_use` and `parked`."""
    commits: int
    commit_ms: Mapping[str, float]
    """Latency of the journal: median and 99th percentile of the latest commits."""
    uptime_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Kernel:
    sandbox: Sandbox
    memory: Memory
    skills: Skills
    runs: Runs
    scheduler: Scheduler
    store: Store
    audit: Audit
    policy: Policy
    ports: Ports
    limits: Limits
    opened_at: float

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | Path,
        *,
        limits: Limits | None = None,
        grants: Grants | None = None,
        ports: Ports | None = None,
        tier: str | None = None,
    ) -> AsyncIterator["Kernel"]:
        """The folder is made when it is missing. `limits` and `grants` stand in the place of those of its config.toml; `tier` asks
        for that tier of the sandbox and no other.
        """
        folder, ports = Path(path), ports or Ports.real()
        policy = load_policy(folder / "config.toml")
        limits, grants = limits or policy.limits, grants or policy.grants
        policy = dataclasses.replace(policy, limits=limits, grants=grants)
        async with AsyncExitStack() as closing:  # what was opened last is closed first
            scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
            closing.push_async_callback(scheduler.close)
            store = await Store.open(folder, ports=ports, limits=limits, migrations=MIGRATIONS, spawn=scheduler.spawn)
            closing.push_async_callback(store.close)
            audit = Audit(store, ports, limits)
            await audit.open(scheduler.spawn, version=__version__, pid=os.getpid())
            closing.push_async_callback(audit.close)
            sandbox = await Sandbox.open(
                store=store, ports=ports, limits=limits, policy=policy, scheduler=scheduler, audit=audit, tier=tier
            )
            closing.push_async_callback(sandbox.close)
            journal = Journal(store, ports, limits)
            memory = Memory(store=store, ports=ports, limits=limits, rules=policy.memory, scrub=journal.erase_in)
            skills = Skills(store=store, ports=ports, limits=limits, policy=policy)
            runs = Runs(
                store=store, ports=ports, limits=limits, policy=policy, scheduler=scheduler, sandbox=sandbox, memory=memory,
                skills=skills, journal=journal,
            )  # fmt: skip
            closing.push_async_callback(runs.close)
            await runs.recover()
            now = ports.clock.monotonic()
            yield cls(sandbox, memory, skills, runs, scheduler, store, audit, policy, ports, limits, now)

    async def status(self) -> Status:
        return Status(
            pid=os.getpid(),
            version=__version__,
            state=str(self.store.folder),
            tier=self.sandbox.tier,
            layers=self.sandbox.layers,
            degraded=self.sandbox.degraded,
            runs=await self.runs.counts(),
            load=self.scheduler.load(),
            sandboxes={"in_use": self.sandbox.in_use, "parked": self.sandbox.parked},
            commits=self.store.commits,
            commit_ms=self.store.latency_ms(),
            uptime_s=self.ports.clock.monotonic() - self.opened_at,
        )


@asynccontextmanager
async def open_memory(path: str | Path) -> AsyncIterator[tuple[Store, Memory, Limits]]:
    """Memory alone, for work on it from a terminal: no sandbox is started, and no run goes on meanwhile."""
    async with _opened_store(Path(path)) as (store, ports, policy):
        scrub = Journal(store, ports, policy.limits).erase_in
        yield (
            store,
            Memory(store=store, ports=ports, limits=policy.limits, rules=policy.memory, scrub=scrub),
            policy.limits,
        )


@asynccontextmanager
async def open_skills(path: str | Path) -> AsyncIterator[Skills]:
    """Skills alone, likewise."""
    async with _opened_store(Path(path)) as (store, ports, policy):
        yield Skills(store=store, ports=ports, limits=policy.limits, policy=policy)


@asynccontextmanager
async def _opened_store(path: Path) -> AsyncIterator[tuple[Store, Ports, Policy]]:
    ports, policy = Ports.real(), load_policy(path / "config.toml")
    async with AsyncExitStack() as closing:
        scheduler = Scheduler(slots=policy.limits.slots, queue_max=policy.limits.queue_max)
        closing.push_async_callback(scheduler.close)
        store = await Store.open(path, ports=ports, limits=policy.limits, migrations=MIGRATIONS, spawn=scheduler.spawn)
        closing.push_async_callback(store.close)
        yield store, ports, policy
