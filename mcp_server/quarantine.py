"""`agent-kernel memory quarantine | release | refuse`: a person looks through what came by a channel that is not believed, and decides.

    quarantine                       what waits, oldest first, and where each of it came from
    release ID... | --source S       it is stored as what its channel said, and found from now on
    refuse ID... | --source S        it is gone; the log keeps the id

Both ends of it: the command, and the kernel's answer behind the control socket. There is no tool for it and no call of a program: what
is held must not talk its way out.

If the process dies: each decision is one transaction of the kernel.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_kernel.base.output import harmless
from agent_kernel.memory import Memory

from .values import wire

__all__ = ["answer", "decide", "options"]

WHO = ("source", "client", "speaker", "conversation", "key", "run_id", "step")


async def answer(memory: Memory, op: str, request: Mapping[str, Any]) -> Any:
    """In the kernel."""
    if op == "memory_quarantine":
        return wire(await memory.quarantined())
    ids, source = request.get("ids"), request.get("source")
    if op == "memory_release":
        return wire(await memory.release(ids, source=source))
    return await memory.refuse(ids, source=source)


def options(verbs: Any, common: argparse.ArgumentParser, act: Callable[[argparse.Namespace, Path], int]) -> None:
    verbs.add_parser("quarantine", parents=[common], help="facts that wait for a person").set_defaults(act=act)
    for name, told in (("release", "believe them: they are found from now on"), ("refuse", "do not: they are gone")):
        verb = verbs.add_parser(name, parents=[common], help=told)
        verb.add_argument("ids", nargs="*", metavar="ID", help="mem_..., as `agent-kernel memory quarantine` shows it")
        verb.add_argument("--source", metavar="S", help="everything that names this source")
        verb.set_defaults(act=act)


def decide(asked: argparse.Namespace, ask: Callable[..., Any]) -> None:
    """Ask the kernel, print what it says."""
    if asked.verb == "quarantine":
        found = ask("memory_quarantine")
        print(json.dumps(found) if asked.json else harmless(_as_text(found)))
        return
    done = ask(f"memory_{asked.verb}", ids=asked.ids or None, source=asked.source)
    if asked.json:
        print(json.dumps(done))
    elif asked.verb == "refuse":
        print(f"{len(done)} refused: they are gone.")
    else:
        known = sum(one["duplicate"] for one in done)
        print(f"{len(done)} released{f', {known} of them known already' if known else ''}.")


def _as_text(found: Mapping[str, Any]) -> str:
    waiting = found.get("waiting", ())
    lines = []
    for fact in waiting:
        lines.append(
            "  ".join([fact["id"], fact["trust"], fact["recorded_at"], *(f"{n}={fact[n]}" for n in WHO if n in fact)])
        )
        cut = f" [... {fact['chars']} characters in all]" if fact["chars"] > len(fact["text"]) else ""
        lines += [f"    {line}" for line in f"{fact['text']}{cut}".splitlines()]
    if found["count"] > len(waiting):
        lines.append(f"{found['count'] - len(waiting)} more wait.")
    return "\n".join(lines or ["Nothing waits in quarantine."])
