"""Work items: what a run waits for from a person or a model, and who may answer. Pure.

    kind      answer_by   answered with                      what it means
    approve   person      approve | deny                     may the program go on; expiry is a no
    resolve   person      approve | deny                     a call in doubt or a replay that differs: once more, or give up
    ask       any         an object of the schema            run_send
    model     any         {"text": ...}, or of the schema    run_send

An item is bound to the digest of what it asks: run, call, kind, prompt, details and schema. Whoever answers a person item names that
digest, so nobody approves a text that has changed under his eyes.

Guarantees
1. The digest changes with every part that the person was shown. Twelve hex characters are shown; any unambiguous longer prefix is taken.
2. Approving through the client that may have caused the item (`channel="host"`) is refused unless the operator allowed it; denying never is.
3. An answer to a schema is checked for: type, enum, const, required, properties, additionalProperties=false, items, minItems, maxItems,
   minLength, maxLength, minimum, maximum, anyOf. Any other keyword is not checked: `unchecked` lists those that a schema uses.

Not here: the rows (journal.py), the waiting (orchestration.py).
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from .errors import ArgumentError, Conflict, Denied

__all__ = [
    "ANSWER_BY",
    "DIGEST_CHARS",
    "check",
    "check_approval",
    "check_schema",
    "command",
    "digest",
    "elsewhere",
    "unchecked",
]

ANSWER_BY: Mapping[str, str] = {"approve": "person", "resolve": "person", "ask": "any", "model": "any"}
DIGEST_CHARS = 12
DEPTH_MAX = 32


def digest(*, run_id: str, n: int, kind: str, prompt: str, details: Any, schema: Any) -> str:
    """64 hex characters over everything the answer is about."""
    body = json.dumps([run_id, n, kind, prompt, details, schema], sort_keys=True, allow_nan=False)
    return hashlib.sha256(body.encode()).hexdigest()


def check_approval(
    *,
    item_digest: str,
    given: str,
    decision: str,
    channel: Literal["person", "host"],
    allowed_in_host: bool,
    item_id: str,
    folder: Path,
) -> None:
    if decision not in ("approve", "deny"):
        raise ArgumentError("argument.invalid", f'decision is {decision!r}. It is "approve" or "deny".')
    if len(given) < DIGEST_CHARS or not item_digest.startswith(given):
        raise Conflict(
            "item.changed",
            f"Item {item_id} has the digest {item_digest[:DIGEST_CHARS]}, not {given!r}. Read it again before deciding.",
        )
    if decision == "approve" and channel == "host" and not allowed_in_host:
        raise elsewhere(item_id, "through this client", folder)


def elsewhere(item_id: str, not_so: str, folder: Path) -> Denied:
    """The refusal that sends the question to the person."""
    return Denied(
        "approval.elsewhere",
        f"Item {item_id} is answered by a person, not {not_so}. Ask the user to run: {command(item_id, folder)}",
    )


def command(item_id: str, folder: Path) -> str:
    """What a person runs to say yes. It names the folder: a host may have been told of one that the person's shell does not know."""
    return f"agent-kernel approve {item_id} --state {shlex.quote(str(folder))}"


def check_schema(schema: Any, at: str = "schema", depth: int = 0) -> None:
    """Refuse what is no schema; run before a question is put, so that no answer has to guess."""
    if isinstance(schema, bool) and depth:
        return
    if not isinstance(schema, dict):
        raise ArgumentError("argument.invalid", f"{at} is {_name(schema)}; it is a JSON schema, so an object.")
    if depth > DEPTH_MAX:
        raise ArgumentError("argument.invalid", f"{at} is nested deeper than {DEPTH_MAX} levels.")
    wanted = schema.get("type", [])
    for name in wanted if isinstance(wanted, list) else [wanted]:
        if not isinstance(name, str) or name not in _TYPES:
            raise ArgumentError("argument.invalid", f"{at}.type is {name!r}. Known: {', '.join(sorted(_TYPES))}.")
    for key, kind in (("properties", dict), ("required", list), ("enum", list), ("anyOf", list)):
        if key in schema and not isinstance(schema[key], kind):
            raise ArgumentError("argument.invalid", f"{at}.{key} is {_name(schema[key])}, not {kind.__name__}.")
    for name, part in schema.get("properties", {}).items():
        check_schema(part, f"{at}.properties.{name}", depth + 1)
    for i, part in enumerate(schema.get("anyOf", [])):
        check_schema(part, f"{at}.anyOf[{i}]", depth + 1)
    if "items" in schema:
        check_schema(schema["items"], f"{at}.items", depth + 1)


def unchecked(schema: Mapping[str, Any]) -> list[str]:
    """Keywords of the schema's top level and its properties that `check` does not look at."""
    parts = [schema, *(part for part in schema.get("properties", {}).values() if isinstance(part, dict))]
    return sorted({key for part in parts for key in part if key not in _CHECKED})


def check(schema: Any, value: Any, at: str = "content", depth: int = 0) -> None:
    """Raise ArgumentError that names the first place where `value` is not of the schema."""
    if schema is True or depth > DEPTH_MAX:
        return
    if schema is False or not isinstance(schema, dict):
        raise _wrong(at, "nothing is allowed here")
    _check_type(schema, value, at)
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        raise _wrong(at, f"it must be one of {json.dumps(schema['enum'])[:200]}")
    if "const" in schema and not _same(value, schema["const"]):
        raise _wrong(at, f"it must be {json.dumps(schema['const'])[:200]}")
    if isinstance(schema.get("anyOf"), list):
        _check_any(schema["anyOf"], value, at, depth)
    if isinstance(value, dict):
        _check_object(schema, value, at, depth)
    elif isinstance(value, list):
        _check_bounds(schema, len(value), at, ("minItems", "maxItems", " entries"))
        for i, entry in enumerate(value):
            check(schema.get("items", True), entry, f"{at}[{i}]", depth + 1)
    elif isinstance(value, str):
        _check_bounds(schema, len(value), at, ("minLength", "maxLength", " characters"))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(schema, value, at, ("minimum", "maximum", ""))


def _check_type(schema: Mapping[str, Any], value: Any, at: str) -> None:
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    tests = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
    if tests and not any(test(value) for test in tests):
        raise _wrong(at, f"it must be {' or '.join(map(str, names))}, not {_name(value)}")


def _check_object(schema: Mapping[str, Any], value: Mapping[str, Any], at: str, depth: int) -> None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            raise _wrong(f"{at}.{name}", "it is required")
    for name, entry in value.items():
        if name in properties:
            check(properties[name], entry, f"{at}.{name}", depth + 1)
        elif schema.get("additionalProperties") is False:
            raise _wrong(f"{at}.{name}", f"unknown; known: {', '.join(properties) or 'nothing'}")


def _check_any(choices: list[Any], value: Any, at: str, depth: int) -> None:
    for choice in choices:
        try:
            check(choice, value, at, depth + 1)
        except ArgumentError:
            continue
        return
    raise _wrong(at, "it fits none of the schema's choices")


def _check_bounds(schema: Mapping[str, Any], size: float, at: str, names: tuple[str, str, str]) -> None:
    low, high, unit = names
    if _is_number(schema.get(low)) and size < schema[low]:
        raise _wrong(at, f"at least {schema[low]}{unit}, not {size}")
    if _is_number(schema.get(high)) and size > schema[high]:
        raise _wrong(at, f"at most {schema[high]}{unit}, not {size}")


def _wrong(at: str, what: str) -> ArgumentError:
    return ArgumentError("argument.schema", f"{at} does not fit the schema: {what}. Send it again.")


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": lambda v: _is_number(v) and (isinstance(v, int) or v.is_integer()),
}

_CHECKED = {
    "type", "enum", "const", "required", "properties", "additionalProperties", "items", "minItems", "maxItems", "minLength",
    "maxLength", "minimum", "maximum", "anyOf",
    "title", "description", "default", "examples", "$schema", "$comment",
}  # fmt: skip


def _name(value: Any) -> str:
    for name in ("null", "boolean", "integer", "number", "string", "array", "object"):
        if _TYPES[name](value):
            return name
    return type(value).__name__
