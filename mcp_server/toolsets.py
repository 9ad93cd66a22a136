"""Which tools a connection has: sets that the operator selects, and the tools of the set `author`, with which agents write skills.

    agent-kernel mcp --toolsets sandbox,skill,author      these and no others
    default                                               sandbox, run, memory, skill

Guarantees
1. A tool of a set that was not selected is neither listed nor called.
2. What is written is a draft. Its test shows that it works; nothing here gives trust, which is a person's or the operator's to give.
3. Nothing that was written is lost: every edit is a version, and rollback finds each.
"""

from collections.abc import Iterable
from typing import Any

from agent_kernel.base.errors import ArgumentError
from agent_kernel.base.lessons import lesson
from agent_kernel.base.policy import TOOLSETS, Grants

from .tools import Call, Tool, served, text

__all__ = ["AUTHOR", "selected"]

DEFAULT = tuple(name for name in TOOLSETS if name != "author")
TEST_TIMEOUT_S = 50.0


def selected(grants: Grants, toolsets: Iterable[str] = ()) -> tuple[Tool, ...]:
    """The tools of those sets (default: all but `author`) that somebody with these grants has."""
    asked = set(toolsets) or set(DEFAULT)
    chosen = tuple(tool for tool in served(grants) if tool.name.partition("_")[0] in asked)
    return (*chosen, *(AUTHOR if "author" in asked else ()))


async def skill_save(call: Call) -> Any:
    given = dict(call.arguments)
    run_id = given.pop("from_run", None)
    if run_id is None:
        return await call.kernel.skills.save(**given, client=call.client, grants=call.grants)
    for name in ("path", "text", "old"):
        if name in given:
            raise ArgumentError(
                "argument.invalid", f"{name!r} does not go with from_run, which writes the whole draft. Edit it after."
            )
    recording = await call.kernel.runs.recording(run_id)
    files = lesson(given["name"], recording, given.get("reason"))
    return await call.kernel.skills.save_tree(
        given["name"], files, reason=given.get("reason"), client=call.client, run_id=run_id
    )


async def skill_manage(call: Call) -> Any:
    given = dict(call.arguments)
    if given["action"] != "test":
        return await call.kernel.skills.manage(**given, client=call.client)
    invocation = await call.kernel.skills.test(given["name"])
    ran = await call.kernel.sandbox.run(
        invocation.code, language=invocation.language, skill=invocation.skill_folder, timeout_s=TEST_TIMEOUT_S, on_note=call.note,
        grants=Grants(), client=call.client,
    )  # fmt: skip
    passed = ran.exit_code == 0 and ran.stopped_by is None
    await call.kernel.skills.tested(invocation, passed=passed, client=call.client)
    return {
        "name": invocation.name, "action": "test", "revision": invocation.revision, "script": invocation.script, "passed": passed,
        "exit_code": ran.exit_code, "stdout": ran.stdout, "stderr": ran.stderr, "error": ran.error, "stopped_by": ran.stopped_by,
    }  # fmt: skip


AUTHOR: tuple[Tool, ...] = (
    Tool(
        "skill_save",
        "Write a skill's draft",
        "Write one file of a skill's draft: the whole text, or `old` replaced once; without text the file is removed. from_run makes a"
        " draft of a completed run. A draft is used by nobody until it is promoted.",
        {
            "name": text(),
            "path": text("default SKILL.md"),
            "text": text(),
            "old": text(),
            "from_run": text("run_id"),
            "reason": text(),
        },
        skill_save,
        required=("name",),
    ),
    Tool(
        "skill_manage",
        "Test, promote or undo a skill",
        "Test a draft (scripts/test.py, in a sandbox), promote it, reject it, roll back to an earlier version (`revision`, or the one"
        " before), or delete the skill. Every version is kept.",
        {
            "name": text(),
            "action": text(enum=("test", "promote", "reject", "rollback", "delete")),
            "revision": text(),
            "reason": text(),
        },
        skill_manage,
        required=("name", "action"),
        destroys=True,
    ),
)
