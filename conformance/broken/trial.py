"""Trying the checks: every twin must fail its own clause, and pass nearly all others.

Twins that can be told within a connection share one proxy and one server and are switched; those that lie about a kill, the
handshake or the end of stdin get a server of their own, two at a time.
"""

import asyncio
import json
import sys
from collections.abc import Iterable

from ..registry import CLAUSES, Clause, Failed, Untestable
from ..subject import Subject, Workplace
from ..suite import Verdict, prepare_state, run_check, run_suite
from . import TWINS

__all__ = ["behind", "own_verdicts", "share_passed"]

TOGETHER = 2


def behind(clause: str, command: list[str]) -> list[str]:
    """The command of this clause's twin of a server."""
    return [sys.executable, "-m", "agent_kernel_conformance.broken.proxy", clause, *command]


def _needs_its_own(clause: Clause) -> bool:
    return bool({"process.kill", "process.fresh"} & set(clause.needs)) or TWINS[clause.id].at == "handshake"


async def _switch(subject: Subject, clause: str) -> None:
    """Let the proxy lie about this clause from now on; start it when the last lie was its death."""
    line = json.dumps({"jsonrpc": "2.0", "method": "conformance/twin", "params": {"clause": clause}}).encode()
    try:
        await subject.write_raw(line)
        await subject.ask_raw("ping", {})
    except (Failed, Untestable):
        await subject.stop()
        await subject.start()
        await subject.write_raw(line)


async def own_verdicts(command: list[str], clauses: Iterable[Clause]) -> list[Verdict]:
    """What each clause's check says about that clause's twin."""
    clauses = list(clauses)
    verdicts = await _shared(command, [clause for clause in clauses if not _needs_its_own(clause)])
    turn = asyncio.Semaphore(TOGETHER)

    async def alone(clause: Clause) -> list[Verdict]:
        async with turn:
            return await run_suite(behind(clause.id, command), [clause])

    for found in await asyncio.gather(*(alone(clause) for clause in clauses if _needs_its_own(clause))):
        verdicts += found
    return verdicts


async def _shared(command: list[str], clauses: list[Clause]) -> list[Verdict]:
    verdicts = []
    subject = Subject(behind("", command), Workplace.make(prepare_state))
    try:
        for clause in clauses:
            await _switch(subject, clause.id)
            verdicts.append(await run_check(clause, subject))
    finally:
        await subject.stop()
        subject.place.remove()
    return verdicts


async def share_passed(command: list[str], twin: str, clauses: Iterable[str]) -> tuple[float, list[Verdict]]:
    """Of these clauses but its own, the share that a twin satisfies, and the verdicts that say otherwise."""
    others = [CLAUSES[id_] for id_ in clauses if id_ != twin]
    verdicts = await run_suite(behind(twin, command), others)
    strayed = [verdict for verdict in verdicts if not verdict.satisfied]
    return 1 - len(strayed) / len(others), strayed
