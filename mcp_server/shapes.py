"""What the reply of each tool holds, as JSON schemas: the resource kernel://schemas, for programs that read replies.

Models do not need them and would pay for them, so no tool carries its own. They come from the kernel's values themselves, whose attribute
names are the wire's; what is a plain object there is written down here.

Guarantees
1. A successful reply has no name that its schema lacks; numbers and booleans that are never None are always there, everything else may be
   left out when it is empty.
2. A reply with `whole` was cut: the schema holds for what is at that uri.

Pure.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_kernel.base.export import Exported
from agent_kernel.base.facts import Added, Hits
from agent_kernel.base.notes import Block
from agent_kernel.base.skillviews import Found, Loaded, Managed, Saved
from agent_kernel.memory import Forgotten
from agent_kernel.sandbox import FileOut, Result

__all__ = ["Part", "schemas"]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A page of what a uri names."""

    uri: str
    mime: str
    size_bytes: int
    offset: int
    text: str | None = None
    next_offset: int | None = None
    note: str | None = None


BESIDE = ("id", "tier", "layers", "usage")
"""Of a sandbox's result: in `_meta`."""

_ERROR = {"code": str, "message": str, "type": str, "traceback": str, "fault": str, "retryable": bool | None}
_ITEM = {
    "item_id": str, "kind": str, "answer_by": str, "prompt": str, "schema": Any, "details": Any, "digest": str, "deadline": str,
}  # fmt: skip
_RUN: dict[str, Any] = {
    "run_id": str, "name": str, "status": str, "detail": str, "output": Any, "error": _ERROR, "warnings": list[Any],
    "waiting": [_ITEM], "progress": dict[str, Any], "usage": dict[str, float], "budget": dict[str, float], "parent": str,
    "created_at": str, "updated_at": str, "next": str, "replayed": bool | None,
}  # fmt: skip
_STEP = {
    "n": int, "path": str, "kind": str, "name": str, "status": str, "attempts": int, "started_at": str, "ended_at": str, "result": Any,
    "error": _ERROR, "effect": str,
}  # fmt: skip
_VIEWS = {"steps": [_STEP], "events": list[Any], "log": list[Any], "runs": [_RUN], "more": bool | None, "cursor": str}

_REPLIES: Mapping[str, Any] = {
    "sandbox_run": Result, "sandbox_read": Part, "sandbox_export": {"files": [Exported]},
    "run_start": _RUN, "run_get": {**_RUN, **_VIEWS}, "run_send": _RUN, "run_approve": _RUN, "run_control": _RUN,
    "memory_add": {"items": [Added]}, "memory_search": Hits, "memory_forget": Forgotten, "memory_blocks": {"blocks": [Block]},
    "memory_edit": Block, "skill_search": {"skills": [Found]}, "skill_load": Loaded, "skill_run": Result, "skill_save": Saved,
    "skill_manage": {
        **typing.get_type_hints(Managed), "script": str, "passed": bool | None, "exit_code": int | None, "stdout": str, "stderr": str,
        "error": _ERROR, "stopped_by": str,
    },
}  # fmt: skip


@functools.cache
def schemas() -> dict[str, dict[str, Any]]:
    """By the name of the tool."""
    return {name: _reply(kind) for name, kind in _REPLIES.items()}


def _reply(kind: Any) -> dict[str, Any]:
    shape = _shape(kind)
    if kind is Result:
        for name in BESIDE:
            del shape["properties"][name]
    shape["properties"] |= {"whole": {"type": "string"}, "note": {"type": "string"}}
    return shape


def _shape(kind: Any) -> dict[str, Any]:
    if isinstance(kind, list):
        return {"type": "array", "items": _shape(kind[0])}
    if isinstance(kind, dict):
        return _object(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        more = {"local_path": str | None} if kind is FileOut else {}
        return _object(typing.get_type_hints(kind) | more)
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if outer in (typing.Union, types.UnionType):
        shapes = [_shape(one) for one in inner if one is not type(None)]
        return shapes[0] if len(shapes) == 1 else {"type": [shape["type"] for shape in shapes]}
    if isinstance(outer, type) and issubclass(outer, Mapping):
        return {"type": "object", "additionalProperties": _shape(inner[1])}
    if isinstance(outer, type) and issubclass(outer, Sequence):
        return {"type": "array", "items": _shape(inner[0])}
    raise TypeError(f"{kind} has no schema")


_PLAIN: Mapping[Any, Mapping[str, Any]] = {
    str: {"type": "string"}, Path: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"}, float: {"type": "number"},
    Any: {},
}  # fmt: skip


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": "object", "properties": {name: _shape(kind) for name, kind in fields.items()}, "additionalProperties": False,
    }  # fmt: skip
    always = [name for name, kind in fields.items() if kind in (bool, int, float)]
    return shape | ({"required": always} if always else {})
