"""A call that a bridge sends again, because the kernel that had it ended before it answered: applied once, whatever had become of it.

    changes nothing                                   done again
    memory_add, _edit, _forget; run_send, _approve,   the stamp tells whether the effect was committed: if so it is answered from what is
    _control                                          there, else done now
    run_start                                         its number is its idempotency key: the same run
    everything else                                   `call.interrupted`: nobody knows, so it is not done again, and may be repeated

Not here: numbers of lines (numbers.py), the commit (base/stamps.py). If this kernel dies too, the next one does the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent_kernel import Kernel
from agent_kernel.base.errors import HostError
from agent_kernel.base.ports import LOCAL
from agent_kernel.base.stamps import Stamp, known, stamped
from agent_kernel.memory import Forgotten

from .numbers import Origin
from .tools import DEFAULT_WAIT_S, Tool, waited
from .values import wire

__all__ = ["marked", "repeated"]


def _nothing(_: Any) -> Any:
    """The run is looked at again."""
    return {}


def _edited(block: Any) -> Any:
    return {"version": block.version}


def _forgotten(value: Any) -> Any:
    """What an erasure gives holds the texts that it erased, for the proof."""
    return {"ids": list(value.ids), "count": value.count, "mode": value.mode} if isinstance(value, Forgotten) else {}


def _added(value: Any) -> Any:
    return [{name: entry[name] for name in ("id", "duplicate", "superseded") if name in entry} for entry in wire(value)]


KEEP: Mapping[str, Callable[[Any], Any]] = {
    "memory_add": _added,
    "memory_edit": _edited,
    "memory_forget": _forgotten,
    "run_send": _nothing,
    "run_approve": _nothing,
    "run_control": _nothing,
}
"""Tools whose effect is one commit, and what of its outcome answers the call later."""


async def repeated(kernel: Kernel, origin: Any, tool: Tool, arguments: dict[str, Any]) -> Any:
    """The reply to a call that was applied already; None where it is to be done now. Raises `call.interrupted`."""
    if not isinstance(origin, Origin):
        return None
    if tool.name == "run_start":
        arguments.setdefault("idempotency_key", f"call:{origin.bridge}:{origin.number}")
        return None
    if not origin.again or tool.reads:
        return None
    if tool.name not in KEEP:
        raise HostError(
            "call.interrupted",
            f"The kernel ended while it had this {tool.name}, and was started again. Whether it was done is not known; it was not done"
            " again. Look first if that matters, then call again.",
            retryable=True,
        )
    found = await kernel.store.read(lambda db: known(db, LOCAL, origin.bridge, origin.number))
    return None if found is None else await _answer(kernel, tool.name, arguments, found[0])


async def _answer(kernel: Kernel, name: str, arguments: Mapping[str, Any], kept: Any) -> Any:
    match name:
        case "memory_add":
            return {"items": kept, "replayed": True}
        case "memory_edit":
            [block] = await kernel.memory.blocks(arguments["label"])
            return {**wire(block), "replayed": True}
        case "memory_forget":
            return {**kept, "replayed": True}
        case _:
            wait_s = arguments.get("wait_s", DEFAULT_WAIT_S) if name == "run_send" else 0.0
            return {**await waited(kernel, arguments["run_id"], wait_s), "replayed": True}


@contextmanager
def marked(origin: Any, tool: Tool) -> Iterator[None]:
    """What is called inside commits its effect together with the number of the call."""
    if not isinstance(origin, Origin) or tool.name not in KEEP:
        yield
        return
    with stamped(Stamp(LOCAL, origin.bridge, origin.number, KEEP[tool.name])):
        yield
