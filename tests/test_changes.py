"""mcp_server/changes.py and prompts.py, as a host sees them: the real server and the real client, in both eras of the protocol."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    PromptReference,
    ResourceListChangedNotification,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
)

sys.path.insert(0, str(Path(__file__).parent))
from test_server import ERAS, bounded, client, ok
from test_skills_ext import both, write

BLOCKS = "memory://blocks"


@contextlib.asynccontextmanager
async def hearing(state, mode, *uris):
    """A client and `heard()`, which waits for the next change that it is told of: a uri, or None for the list."""
    told = asyncio.Queue()

    async def heard(message):
        match message:
            case ResourceListChangedNotification():
                told.put_nowait(None)
            case ResourceUpdatedNotification():
                told.put_nowait(str(message.params.uri))

    async with (
        client(state, mode=mode, message_handler=heard) as c,
        contextlib.AsyncExitStack() as stack,
    ):
        if mode == "legacy":
            await c.list_resources()
            for uri in uris:
                await c.subscribe_resource(uri)
        else:
            listening = c.listen(resources_list_changed=True, resource_subscriptions=list(uris))
            await stack.enter_async_context(listening)
        yield c, told.get


@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
@pytest.mark.parametrize("mode", ERAS)
def test_a_skill_that_appears_and_a_note_that_another_wrote_are_told(tmp_path, mode):
    async def main():
        async with hearing(tmp_path / "state", mode, BLOCKS) as (c, heard):
            assert c.server_capabilities.resources.list_changed
            assert c.server_capabilities.resources.subscribe
            write(tmp_path / "state" / "skills" / "tally")
            assert await heard() is None
            await ok(c, "memory_edit", label="user", text="likes marmalade")
            assert await heard() == BLOCKS
            (tmp_path / "state" / "skills" / "tally" / "SKILL.md").unlink()
            assert await heard() is None

    bounded(main())


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_what_was_unsubscribed_is_not_told_and_an_unknown_uri_is_refused(tmp_path):
    async def main():
        async with hearing(tmp_path / "state", "legacy", BLOCKS) as (c, heard):
            await c.unsubscribe_resource(BLOCKS)
            await ok(c, "memory_edit", label="user", text="likes marmalade")
            await c.subscribe_resource("memory://stats")
            await ok(c, "memory_add", items=[{"text": "One jar."}])
            assert await heard() == "memory://stats"
            with pytest.raises(MCPError) as caught:
                await c.subscribe_resource("run://run_nothing")
            assert caught.value.error.code == INVALID_PARAMS

    bounded(main())


@both
async def test_the_prompt_brings_a_skill_and_completes_its_name(c, skills):
    write(skills / "tally")
    write(skills / "tailor")
    [prompt] = (await c.list_prompts()).prompts
    assert (prompt.name, [a.name for a in prompt.arguments if a.required]) == ("skill", ["name"])
    got = await c.get_prompt("skill", {"name": "tally", "task": "Count them."})
    says, brings = [message.content for message in got.messages]
    assert "Count them." in says.text
    assert "description: Counts jars of marmalade." in brings.resource.text
    for name, arguments in (("skill", {}), ("skill", {"name": "nothing"}), ("other", {"name": "tally"})):
        with pytest.raises(MCPError) as caught:
            await c.get_prompt(name, arguments)
        assert caught.value.error.code == INVALID_PARAMS
    asked = PromptReference(type="ref/prompt", name="skill")
    assert (await c.complete(asked, {"name": "name", "value": "ta"})).completion.values == ["tailor", "tally"]
    assert (await c.complete(asked, {"name": "task", "value": "ta"})).completion.values == []
    template = ResourceTemplateReference(type="ref/resource", uri="skill://{+path}")
    offered = (await c.complete(template, {"name": "path", "value": "user/tal"})).completion.values
    assert offered == ["user/tally/SKILL.md"]
    await c.read_resource(f"skill://{offered[0]}")


@both
async def test_runs_are_completed_by_their_id_and_by_their_name(c, skills):
    run = await ok(c, "run_start", program="async def main(input):\n    return 1\n", name="Nightly report", wait_s=10)
    template = ResourceTemplateReference(type="ref/resource", uri="run://{run_id}")
    for typed in (run["run_id"][:8], "nightly"):
        assert (await c.complete(template, {"name": "run_id", "value": typed})).completion.values == [run["run_id"]]
    assert (await c.complete(template, {"name": "run_id", "value": "weekly"})).completion.values == []
