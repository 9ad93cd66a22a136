"""mcp_server/tasks.py, as a client of the extension sees it: the real server, requests with and without the declaration."""

import sys
from pathlib import Path

import pytest
from mcp.client.extension import ClientExtension
from mcp.shared.exceptions import MCPError
from mcp_types import Request

sys.path.insert(0, str(Path(__file__).parent))
from test_server import ASKS, bounded, client, followed, ok
from test_skills_ext import Anything, Params

TASKS = "io.modelcontextprotocol/tasks"
INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY = -32602, -32601, -32021


class Declared(ClientExtension):
    identifier = TASKS


def with_tasks(state):
    return client(state, extensions=[Declared()])


async def asked(c, method, **params):
    answer = await c.session.send_request(Request(method=method, params=Params(**params)), Anything)
    return answer.model_dump()


async def code_of(c, method, **params):
    with pytest.raises(MCPError) as caught:
        await asked(c, method, **params)
    return caught.value.error.code


async def started(c, program, **arguments):
    return await asked(c, "tools/call", name="run_start", arguments={"program": program, **arguments})


async def ended(c, task):
    """The task when it neither works nor was asked to wait longer; each look waits for the run itself."""
    for _ in range(8):
        got = await asked(c, "tasks/get", taskId=task["taskId"])
        if got["status"] != "working":
            return got
        await ok(c, "run_get", run_id=task["taskId"], wait_s=10)
    raise AssertionError(got)


def test_a_run_is_a_task_with_the_reply_of_the_call_as_its_result(tmp_path):
    async def main():
        async with with_tasks(tmp_path / "state") as c:
            assert c.server_capabilities.extensions[TASKS] == {}
            task = await started(c, "async def main(input):\n    await kernel.sleep(0.2)\n    return 42\n")
            assert (task["resultType"], task["status"], task["ttlMs"]) == ("task", "working", None)
            assert task["taskId"].startswith("run_")
            assert {"result", "structuredContent", "content"} & task.keys() == set()
            done = await ended(c, task)
            assert (done["resultType"], done["status"]) == ("complete", "completed")
            assert done["result"]["structuredContent"]["output"] == 42
            failed = await ended(c, await started(c, "async def main(input):\n    return 1 / 0\n"))
            assert failed["status"] == "completed"
            assert failed["result"]["structuredContent"]["status"] == "failed"
        async with with_tasks(tmp_path / "state") as again:
            kept = await asked(again, "tasks/get", taskId=task["taskId"])
            assert (kept["status"], kept["result"]["structuredContent"]["output"]) == ("completed", 42)

    bounded(main())


def test_a_person_is_asked_and_answers_through_the_task(tmp_path):
    async def main():
        async with with_tasks(tmp_path / "state") as c:
            task = await started(c, ASKS)
            asks = await ended(c, task)
            [(key, form)] = asks["inputRequests"].items()
            assert asks["status"] == "input_required"
            assert "Publish the report?" in form["params"]["message"]
            answer = {key: {"action": "accept", "content": {"decision": "approve"}}, "other": {"action": "cancel"}}
            assert "status" not in await asked(c, "tasks/update", taskId=task["taskId"], inputResponses=answer)
            done = await ended(c, task)
            assert done["result"]["structuredContent"]["output"] == {"ok": True}

    bounded(main())


def test_a_cancelled_task_is_cancelled_and_an_ended_one_stays(tmp_path):
    async def main():
        async with with_tasks(tmp_path / "state") as c:
            task = await started(c, "async def main(input):\n    await kernel.sleep(3600)\n")
            for _ in range(2):
                assert "status" not in await asked(c, "tasks/cancel", taskId=task["taskId"])
                assert (await ended(c, task))["status"] == "cancelled"

    bounded(main())


def test_only_who_declares_tasks_in_the_request_has_them(tmp_path):
    async def main():
        async with client(tmp_path / "state") as c:
            plain = await ok(c, "run_start", program="async def main(input):\n    return 1\n")
            assert (await followed(c, plain))["output"] == 1
            task = {"taskId": plain["run_id"]}
            for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                assert await code_of(c, method, **task) == MISSING_CAPABILITY
        async with with_tasks(tmp_path / "state") as c:
            for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                assert await code_of(c, method, taskId="run_aaaaaaaaaaaa") == INVALID_PARAMS
            for method in ("tasks/list", "tasks/result"):
                assert await code_of(c, method, **task) == METHOD_NOT_FOUND
        async with client(tmp_path / "state", mode="legacy") as c:
            assert await code_of(c, "tasks/get", **task) == MISSING_CAPABILITY

    bounded(main())
