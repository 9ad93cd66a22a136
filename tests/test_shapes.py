"""mcp_server/shapes.py: the schemas say what the replies hold, of every tool and in every view."""

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from agent_kernel import Folder, Grants
from agent_kernel_mcp.profiles import tools_of
from agent_kernel_mcp.shapes import schemas

sys.path.insert(0, str(Path(__file__).parent))
from test_replies import conversation

PROGRAM = "async def main(input):\n    kernel.log('begun')\n    kernel.progress(1, 2, 'half')\n    return await kernel.ask('Which?', {'type': 'object'})"
FAILS = "async def main(input):\n    await kernel.step('s', lambda: 1 / 0)"
APPROVES = "async def main(input):\n    return await kernel.approve('Go?', details={'a': 1}, timeout_s=600)"
TOOLSETS = ("sandbox", "run", "memory", "skill", "author")


def test_every_tool_has_one():
    writable = Grants(folders=(Folder(Path("/x"), writable=True),))
    assert {tool.name for tool in tools_of([], writable, TOOLSETS)} == set(schemas())
    for schema in schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "anyOf" not in json.dumps(schema)


@pytest.mark.parametrize("spoiled", [{"exit_code": 0, "tea": 1}, {"exit_code": "0"}, {"files": [{"path": "a"}]}])
def test_what_is_not_so_is_told(spoiled):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, schemas()["sandbox_run"])


def test_the_replies_of_every_tool_are_as_their_schema_says(tmp_path):
    called = set()

    async def body(c):
        shapes = json.loads((await c.read_resource("kernel://schemas")).contents[0].text)

        async def ok(tool, **arguments):
            result = await c.call_tool(tool, arguments)
            assert not result.is_error, result.content[0].text
            reply = json.loads(result.content[0].text)
            jsonschema.validate(reply, shapes[tool])
            called.add(tool)
            return reply

        ran = await ok(
            "sandbox_run", code="import sys\nopen('a.txt', 'w').write('1')\nprint('x' * 9000, file=sys.stderr)\n1 / 0"
        )
        await ok("sandbox_run", code="while True: pass", timeout_s=0.2)
        await ok("sandbox_read", uri=ran["files"][0]["uri"])
        await ok("sandbox_export", **{"from": [ran["files"][0]["uri"]], "to": f"{tmp_path}/out/"})
        run = await ok("run_start", program=PROGRAM, name="n", budget={"steps": 9}, idempotency_key="k")
        await ok("run_start", program=PROGRAM, name="n", budget={"steps": 9}, idempotency_key="k")
        await ok("run_start", program=FAILS)
        for view in ("summary", "steps", "events", "log"):
            await ok("run_get", run_id=run["run_id"], view=view)
        await ok("run_send", run_id=run["run_id"], item_id=run["waiting"][0]["item_id"], content={"a": 1})
        held = await ok("run_start", program=APPROVES)
        item = held["waiting"][0]
        await ok("run_approve", run_id=held["run_id"], item_id=item["item_id"], digest=item["digest"], decision="deny")
        slow = await ok("run_start", program="async def main(input): await kernel.sleep(600)", wait_s=0)
        await ok("run_control", run_id=slow["run_id"], action="cancel")
        await ok("run_get", limit=2)
        await ok("memory_add", items=[{"text": "tea is green", "key": "tea", "tags": ["a"], "source": "s"}, {"text": "key sk_live_4eC39HqLyjWDarjtT1zdp7dc"}])  # fmt: skip
        added = await ok(
            "memory_add", items=[{"text": "tea is black", "key": "tea", "conversation": "c", "speaker": "Ada"}]
        )
        await ok("memory_search", query="tea", include_retired=True, explain=True)
        await ok("memory_forget", ids=[added["items"][0]["id"]], mode="erase", reason="r")
        await ok("memory_edit", label="me", text="I am Ada")
        await ok("memory_blocks")
        await ok("skill_search", query="durable programs")
        await ok("skill_load", name="durable-programs")
        await ok("skill_load", name="durable-programs", path="SKILL.md")
        await ok(
            "skill_save", name="tally", text="---\nname: tally\ndescription: Counts. Use to count.\n---\nRun it.\n"
        )
        await ok("skill_save", name="tally", path="scripts/test.py", text="print(1)\n")
        await ok("skill_manage", name="tally", action="test")
        await ok("skill_manage", name="tally", action="promote")
        await ok("skill_load", name="tally", view="history")
        await ok("skill_run", name="tally", script="scripts/test.py")

    (tmp_path / "out").mkdir()
    conversation(tmp_path / "state", body, "--folder", f"{tmp_path}/out:rw", "--toolsets", ",".join(TOOLSETS))
    assert called == set(schemas())
