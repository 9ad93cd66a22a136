"""Spin-up of a sandbox as time to result: from the call until the output and the status of its first program are in the caller's hands.

That is ComputeSDK's definition (create, then the first command done), in its three modes, and what stands beside it:

    sandbox.alone       one after the other, a pause between; 20 a round, so 100 in the usual five rounds
    sandbox.staggered   100 started 20 ms apart, whether or not the ones before have answered
    sandbox.burst       100 started in one moment
    sandbox.rate        closed loops of 1 and of 2 clients: answers a second
    sandbox.layers      what stands around the process that runs the program
    sandbox.memory      what one that waits weighs

Contenders: a fresh sandbox of ours, with a pool of parked ones and without (in `alone`: pool hit, since each turn waits before its clock
until one is parked, and pool miss); the same program by a plain interpreter; bubblewrap + python3; with --peers those of peers.py; an
empty process and an awaited no-op as controls. Every program has a nonce (questions.py). What stands around each is read from outside,
in /proc, while it runs (outside.py), before the first clock; Landlock alone is hearsay, since /proc does not show it.

Between two turns of `alone` there is a pause, so that the tearing down of one (a sandbox's tree is killed and reaped behind its reply)
is not charged to the next. In the other cases there is none: a caller that never pauses pays for it.
"""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_kernel.base.audit import MIGRATIONS, Audit
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.sandbox import Sandbox
from agent_kernel.scheduler import Scheduler

from . import peers as others
from .controls import empty_process, nothing, plain_python
from .interleave import Absent, Case
from .outside import Memory, Seen, descendants, look, seen_while, weigh, whole_of, worlds
from .questions import HOLD_S, Program, holding
from .survey import Table
from .ways import Failed, Way, contender

__all__ = ["Look", "cases", "look_at", "opened", "ours"]

BASE = "python3 -I -S"
PAUSE_S = 0.01
SPACED_S = 0.02
SLICE_S = 0.6
PARKED_WITHIN_S = 10.0
POOL = "its pool as it is by default"
NO_POOL = "sandboxes_parked_max = 0, so each call forks its own"


@dataclass(frozen=True, slots=True)
class Look:
    way: Way
    seen: Seen | None
    memory: Memory | None


@asynccontextmanager
async def cases(folder: Path, *, peers: Path | None) -> AsyncIterator[list[Case | Table]]:
    """`peers` is the folder of those that were installed."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(opened(folder / "state"))
        parked = await _parked(sandbox)
        bare = await stack.enter_async_context(opened(folder / "bare", sandboxes_parked_min=0, sandboxes_parked_max=0))
        found = [await others.bubblewrap(), *(await others.ways(peers, stack) if peers is not None else [])]
        present = [one for one in found if isinstance(one, Way)]
        absent = [one for one in found if isinstance(one, Absent)]
        ours_too = (ours(sandbox, POOL), ours(bare, NO_POOL))
        looks = [await look_at(way) for way in (*ours_too, plain_python(), *present)]
        yield [*_cases(sandbox, looks, absent, _note(sandbox)), _layers(looks), _memory(looks, parked)]


def _cases(sandbox: Sandbox, looks: Sequence[Look], absent: Sequence[Absent], note: str) -> list[Case]:
    everyone = [contender(one.way) for one in looks]
    pool, no_pool, *rest = everyone
    hit = dataclasses.replace(pool, name="sandbox.run, pool hit", ready=lambda: _are_parked(sandbox))
    miss = dataclasses.replace(no_pool, name="sandbox.run, pool miss")
    return [
        Case(
            "sandbox.alone",
            "One program in a fresh sandbox, one caller: time until its output and status are here",
            [hit, miss, *rest, empty_process(), nothing()],
            base=BASE,
            passes=20,
            pause_s=PAUSE_S,
            absent=absent,
            note=note,
        ),
        Case(
            "sandbox.staggered",
            f"100 programs in fresh sandboxes, one started each {SPACED_S * 1000:.0f} ms: time of each until its result is here",
            everyone,
            base=BASE,
            passes=1,
            at_once=100,
            spaced_s=SPACED_S,
            pause_s=0.2,
            note=note,
        ),
        Case(
            "sandbox.burst",
            "100 programs in fresh sandboxes, all started in one moment: time of each until its result is here",
            everyone,
            base=BASE,
            passes=1,
            at_once=100,
            pause_s=0.2,
            note=note,
        ),
        *(
            Case(
                f"sandbox.rate{clients}",
                f"{clients} client{'s' * (clients > 1)} without a pause: time by answers, over slices of {SLICE_S:g} s",
                everyone,
                base=BASE,
                passes=2,
                at_once=clients,
                slice_s=SLICE_S,
                pause_s=0.1,
                note=f"x of 0.2 is five times the rate. {note}",
            )
            for clients in (1, 2)
        ),
    ]


@asynccontextmanager
async def opened(folder: Path, **pool: int) -> AsyncIterator[Sandbox]:
    limits, ports = Limits(**pool), Ports.real()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(folder, ports=ports, limits=limits, migrations=[MIGRATIONS], spawn=scheduler.spawn)
    audit, sandbox = Audit(store, ports, limits), None
    try:
        await audit.open(scheduler.spawn)
        sandbox = await Sandbox.open(
            store=store, ports=ports, limits=limits, policy=Policy(), scheduler=scheduler, audit=audit
        )
        yield sandbox
    finally:
        if sandbox is not None:
            await sandbox.close()
            await audit.close()
        await store.close()
        await scheduler.close()


async def _are_parked(sandbox: Sandbox, least: int = 1) -> None:
    try:
        async with asyncio.timeout(PARKED_WITHIN_S):
            while sandbox.parked < least:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.001)
    except TimeoutError as error:
        raise Failed(f"{sandbox.parked} of {least} sandboxes parked within {PARKED_WITHIN_S:g} s") from error


def ours(sandbox: Sandbox, pool: str = POOL) -> Way:
    async def ask(program: Program) -> str:
        result = await sandbox.run(program.text)
        if result.exit_code != 0 or result.stopped_by is not None:
            raise Failed(f"exit {result.exit_code}, stopped by {result.stopped_by}: {result.stderr[-300:]!r}")
        return result.stdout

    about = f"agent-kernel, tier {sandbox.tier}: full CPython {sandbox.python}, a fresh process for each call, nothing of it used again; {pool}"
    return Way(
        "sandbox.run" if pool == POOL else "sandbox.run, no pool",
        "subject",
        about,
        ask,
        ask,
        reports=", ".join(sandbox.layers),
    )


def _note(sandbox: Sandbox) -> str:
    missing = f" Missing on this host: {', '.join(sandbox.degraded)}." if sandbox.degraded else ""
    return f"Tier {sandbox.tier}.{missing}"


# --- what is seen from outside


async def look_at(way: Way) -> Look:
    """Twice if need be: on a busy machine a program may be over before we get to look."""
    for hold_s in (HOLD_S, 5 * HOLD_S):
        found = await _looked(way, holding(way.language, threads=not way.process, hold_s=hold_s))
        if found is not None:
            return Look(way, *found)
    return Look(way, None, None)


async def _looked(way: Way, program: Program) -> tuple[Seen, Memory | None] | None:
    before = descendants(os.getpid())

    def act(pid: int) -> tuple[Seen, Memory | None] | None:
        try:
            memory = weigh(whole_of(pid, before))
        except OSError:
            memory = None
        seen = look(pid)
        return None if seen.uid is None else (seen, memory)

    try:
        return await seen_while(way.crowd(program), lambda: way.find(program), act)
    except Exception as problem:  # noqa: BLE001  (whatever it raises, it is told here and shows in its rows)
        print(f"{way.name}: nothing to look at: {type(problem).__name__}: {problem}", file=sys.stderr)
        return None


def _layers(looks: Sequence[Look]) -> Table:
    rows = []
    for one in looks:
        seen = one.seen
        if seen is None:
            rows.append((one.way.name, "ended unseen", *["?"] * 6))
            continue
        held = int(seen.capabilities, 16).bit_count() if seen.capabilities != "unreadable" else "unreadable"
        privileges = {True: "none new", False: "may gain", None: "unreadable"}[seen.no_new_privs]
        own = " ".join(seen.own) or "none"
        unread = f" (unreadable: {' '.join(seen.unreadable)})" if seen.unreadable else ""
        limits = " ".join(seen.limits) or "none"
        cgroup = {True: "own", False: "ours", None: "unreadable"}[seen.cgroup]
        rows.append(
            (one.way.name, seen.seccomp, privileges, str(held or "none"), str(seen.uid), own + unread, limits, cgroup)
        )
    reports = {one.way.reports: one.way.name for one in reversed(looks) if one.way.reports}
    told = [f"{name} says of itself: {report}." for report, name in reports.items()]
    return Table(
        "sandbox.layers",
        "What stands around the process that runs the program, seen from outside while it ran",
        ("", "seccomp", "privileges", "capabilities", "host uid", "namespaces not ours", "limits below ours", "cgroup"),
        rows,
        f"We have uid {os.getuid()}. Capabilities count inside its own user namespace, where it has one. /proc does not show"
        f" Landlock. {' '.join(told)}",
    )


async def _parked(sandbox: Sandbox) -> list[Memory]:
    """Sandboxes that wait for a program; nothing else is in a pid namespace below us yet."""
    found = []
    with contextlib.suppress(Failed):  # the rows that need one will say so
        await _are_parked(sandbox, Limits().sandboxes_parked_min)
    for pids in (one for one in worlds().values() if len(one) > 1):  # an init that is made ahead has no guest yet
        with contextlib.suppress(OSError):
            found.append(weigh(pids))
    return sorted(found, key=lambda one: one.pss_bytes)


def _memory(looks: Iterable[Look], parked: Sequence[Memory]) -> Table:
    rows = []
    if parked:
        rows.append((f"parked sandbox, median of {len(parked)}", *_cells(parked[len(parked) // 2])))
    rows += [(one.way.name, *_cells(one.memory)) for one in looks]
    return Table(
        "sandbox.memory",
        "A program that waits: what its whole tree of processes weighs",
        ("", "processes", "PSS", "private dirty"),
        rows,
        "PSS shares a common page out among those who have it; private dirty is what one more of them costs.",
    )


def _cells(memory: Memory | None) -> tuple[str, ...]:
    if memory is None:
        return ("unreadable",) * 3
    sizes = (memory.pss_bytes, memory.private_dirty_bytes)
    return (str(memory.processes), *(f"{size / 2**20:.1f} MB" for size in sizes))
