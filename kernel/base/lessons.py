"""A finished run as the draft of a skill: its program, its input as parameters, and a test that replays it. Pure.

    SKILL.md                     what it does, the parameters, how to start it
    program.py                   the program, as it ran
    references/recording.json    {input, output, answers: [{method, name, kind, value, t}]}
    scripts/test.py              runs the program with a module `kernel` that answers from the recording, and compares the output

Guarantees
1. The test needs nothing but the skill: no kernel, no network, no clock. It passes when the program, given the same answers, returns the same.
2. Answers are given by method and name in the order in which they were recorded; a call beyond them fails the test and is named.

What the test cannot do: races, messages to children, and programs whose output holds `kernel.random` or `kernel.uuid` fail it; it says so.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .invocations import PROGRAM

__all__ = ["Answered", "Recording", "lesson"]

TITLE_CHARS_MAX = 300


class Answered(NamedTuple):
    method: str
    name: str
    kind: str
    value: Any
    t: float


class Recording(NamedTuple):
    run_id: str
    name: str | None
    program: str
    input: Any
    output: Any
    epoch: float
    answers: tuple[Answered, ...]


def lesson(name: str, recording: Recording, purpose: str | None) -> dict[str, bytes]:
    """The files of the draft."""
    recorded = {
        "input": recording.input, "output": recording.output,
        "answers": [{**answer._asdict(), "t": recording.epoch + answer.t} for answer in recording.answers],
    }  # fmt: skip
    return {
        "SKILL.md": _skill_md(name, recording, purpose).encode(),
        PROGRAM: recording.program.encode(),
        "references/recording.json": json.dumps(recorded, indent=1).encode() + b"\n",
        "scripts/test.py": TEST.encode(),
    }


def _skill_md(name: str, recording: Recording, purpose: str | None) -> str:
    title = " ".join(
        (purpose or _docstring(recording.program) or recording.name or f"The program of {recording.run_id}").split()
    )
    calls = ", ".join(dict.fromkeys(answer.method for answer in recording.answers)) or "nothing"
    lines = [
        "---", f"name: {name}", f"description: {json.dumps(title[:TITLE_CHARS_MAX], ensure_ascii=False)}", "---", "",
        f"A durable program, taken from {recording.run_id}, which completed. It calls: {calls}.", "",
        f"Start it with `run_start(skill={name!r}, input={{...}})`. The input:", "", *_parameters(recording.input), "",
        f"- [{PROGRAM}]({PROGRAM}): the program",
        "- [scripts/test.py](scripts/test.py): replays that run from [references/recording.json](references/recording.json)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _parameters(given: Any) -> Iterable[str]:
    if not isinstance(given, Mapping) or not given:
        return ["no parameters" if not given else f"`{_shown(given)}` in that run"]
    rows = [f"| {_cell(str(name))} | {_type(value)} | `{_cell(_shown(value))}` |" for name, value in given.items()]
    return ["| name | type | in that run |", "|---|---|---|", *rows]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _docstring(program: str) -> str | None:
    found = re.match(r'\s*"""(.+?)(?:\n\s*\n|""")', program, re.DOTALL)
    return found.group(1) if found else None


TEST = '''"""Replays the recorded run: the same answers must give the same output. Made with the skill; needs nothing else."""

import asyncio
import collections
import inspect
import json
import os
import sys
import types

ROOT = os.environ.get("SKILL") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Record(dict):
    __getattr__ = dict.__getitem__


class Error(Exception):
    def __init__(self, code, message="", fault="guest", *, retryable=False):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.fault, self.retryable = code, message, fault, retryable


class Kernel(types.ModuleType):
    """Answers every call from the recording, by method and name, in order."""

    Error = Error

    def __init__(self, answers, blocking):
        super().__init__("kernel")
        self.waiting = collections.defaultdict(collections.deque)
        for answer in answers:
            self.waiting[answer["method"], answer["name"]].append(answer)
        self.at = answers[0]["t"] if answers else 0.0
        self.blocking = blocking
        for face in ("sandbox", "memory"):
            setattr(self, face, types.SimpleNamespace())
        for method in ("sandbox.run", "sandbox.export", "memory.add", "memory.search", "memory.forget", "memory.edit", "memory.blocks"):
            face, name = method.split(".")
            setattr(getattr(self, face), name, lambda *a, method=method, **k: self.call(method, method))
        for method in ("sleep", "receive", "send", "approve", "ask", "model"):
            setattr(self, method, lambda *a, method=method, **k: self.call(method, method))
        for method in ("step", "skill", "tool"):
            setattr(self, method, lambda name, *a, method=method, **k: self.call(method, name))

    def call(self, method, name):
        left = self.waiting[method, name]
        if not left:
            raise SystemExit(f"the program calls {method} {name!r} once more than the run did")
        answer = left.popleft()
        self.at = max(self.at, answer["t"])
        if self.blocking:
            return self.value(answer)
        return self.later(answer)

    async def later(self, answer):
        await asyncio.sleep(0)
        return self.value(answer)

    def value(self, answer):
        value = json.loads(json.dumps(answer["value"]), object_hook=Record)
        if answer["kind"] != "ok":
            raise Error(value.get("code", "error"), value.get("message", ""))
        if answer["method"] == "step":
            return value.get("value") if isinstance(value, dict) else value
        if answer["method"] in ("sandbox.run", "skill"):
            empty = {"exit_code": None, "stdout": "", "stderr": "", "value": None, "outputs": [], "files": [], "stopped_by": None}
            return Record({**empty, **value})
        return value

    def spawn(self, *a, **k):
        self.waiting["spawn", "spawn"].popleft()
        return self.call("join", "join")

    def map(self, fn, items, limit=16):
        if self.blocking:
            return [fn(item) for item in items]

        async def each():
            return [await made if inspect.isawaitable(made := fn(item)) else made for item in items]

        return each()

    def now(self):
        return self.at

    def log(self, *a, **k):
        pass

    progress = log

    def __getattr__(self, name):
        raise SystemExit(f"kernel.{name} cannot be replayed here; write a test of your own for this program")


def main():
    with open(os.path.join(ROOT, "references", "recording.json"), encoding="utf8") as file:
        recording = json.load(file)
    with open(os.path.join(ROOT, "program.py"), encoding="utf8") as file:
        source = file.read()
    blocking = "async def main" not in source
    module = Kernel(recording["answers"], blocking)
    sys.modules["kernel"] = module
    scope = {"kernel": module, "__name__": "program"}
    exec(compile(source, "program.py", "exec"), scope)
    given = json.loads(json.dumps(recording["input"]), object_hook=Record)
    output = scope["main"](given)
    output = output if blocking else asyncio.run(output)
    output = json.loads(json.dumps(output))
    if output != recording["output"]:
        raise SystemExit(f"the output is {json.dumps(output)[:500]}, the run returned {json.dumps(recording['output'])[:500]}")
    left = [key for key, answers in module.waiting.items() if answers]
    if left:
        raise SystemExit(f"the program no longer makes these calls of the run: {left}")
    print("replayed:", len(recording["answers"]), "answers, the same output")


main()
'''
