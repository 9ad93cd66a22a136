"""The set `author` and skill_run, as a client calls them: from a draft to a run, and what a script of a skill cannot do."""

import json
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from agent_kernel import Folder, Grants
from agent_kernel.base.errors import ArgumentError, CallerError, Conflict, KernelError, NotFound
from agent_kernel.base.policy import TOOLSETS
from agent_kernel_mcp.tools import Call, named
from agent_kernel_mcp.toolsets import selected

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, ran
from skillsets import write

TOOLS = selected(Grants(), TOOLSETS)
MD = "---\nname: tally\ndescription: Counts jars.\n---\nCount.\n"


async def call(kernel, tool, grants=None, **arguments):
    tool = named(tool, TOOLS)
    return await tool.call(Call(kernel, tool.convert(arguments), client="test", grants=grants))


def test_the_tools_of_the_set_author_are_there_only_when_it_is_selected():
    default = {tool.name for tool in selected(Grants())}
    assert default.isdisjoint({"skill_save", "skill_manage"})
    assert {tool.name for tool in selected(Grants(), TOOLSETS)} == default | {"skill_save", "skill_manage"}
    assert {tool.name for tool in selected(Grants(), ("skill", "author"))} == {
        "skill_search", "skill_load", "skill_run", "skill_save", "skill_manage",
    }  # fmt: skip


def test_a_draft_is_tested_in_a_sandbox_and_promoted(tmp_path):
    async def act(k):
        await call(k, "skill_save", name="tally", text=MD)
        await call(
            k, "skill_save", name="tally", path="scripts/tally.py", text="def tally(xs):\n    return sum(xs) + 1\n"
        )
        test = "from tally import tally\nassert tally([1, 2]) == 3, tally([1, 2])\n"
        await call(k, "skill_save", name="tally", path="scripts/test.py", text=test)
        tested = await call(k, "skill_manage", name="tally", action="test")
        assert (tested["passed"], tested["exit_code"]) == (False, 1)
        with pytest.raises(Conflict, match="failed"):
            await call(k, "skill_manage", name="tally", action="promote")
        await call(k, "skill_save", name="tally", path="scripts/tally.py", text="sum(xs)", old="sum(xs) + 1")
        assert (await call(k, "skill_manage", name="tally", action="test"))["passed"]
        assert (await call(k, "skill_manage", name="tally", action="promote")).state == "current"
        events = (await call(k, "skill_load", name="tally", view="history")).events
        assert [(e.action, e.outcome, e.client) for e in events[:3]] == [
            ("promote", None, "test"), ("test", "passed", "test"), ("save", None, "test"),
        ]  # fmt: skip
        with pytest.raises(ArgumentError, match=r"argument\.invalid"):
            await call(k, "skill_manage", name="tally", action="approve")
        assert (await call(k, "skill_load", name="tally")).trust == "agent"

    opened(tmp_path / "state", act)


PROGRAM = '''"""Adds up what each of the shops sold."""
import asyncio

def price(n):
    return n * 2

async def main(input):
    prices = await asyncio.gather(*(kernel.step("price", price, n) for n in input["sold"]))
    await kernel.memory.add([{"text": f"sold {sum(prices)}"}])
    shown = await kernel.sandbox.run("print(1 + 1)")
    await kernel.sleep(0.01)
    return {"sum": sum(prices), "shown": shown.stdout.strip(), "shops": len(input["sold"])}
'''


def test_a_run_becomes_a_skill_whose_test_replays_it_and_which_runs_with_other_input(tmp_path):
    async def act(k):
        handle = await k.runs.start(PROGRAM, {"sold": [1, 2, 3]})
        output = await handle.result()
        saved = await call(k, "skill_save", name="shop-sums", from_run=handle.id)
        assert saved.errors == ()
        assert [f.path for f in saved.files] == [
            "SKILL.md",
            "program.py",
            "references/recording.json",
            "scripts/test.py",
        ]
        loaded = await call(k, "skill_load", uri=saved.uri)
        assert loaded.description == "Adds up what each of the shops sold."
        assert "| sold | array | `[1, 2, 3]` |" in loaded.body
        tested = await call(k, "skill_manage", name="shop-sums", action="test")
        assert tested["passed"], tested
        await call(k, "skill_manage", name="shop-sums", action="promote")
        again = await call(k, "run_start", skill="shop-sums", input={"sold": [10]}, wait_s=50)
        assert (again["status"], again["output"]) == ("completed", {**output, "sum": 20, "shops": 1})
        spawned = await ran(k, 'return await kernel.spawn("shop-sums", {"sold": [5, 5]})')
        assert spawned["output"]["sum"] == 20
        broken = "sum(prices) + 1"
        await call(
            k, "skill_save", name="shop-sums", path="program.py", old='"sum": sum(prices)', text=f'"sum": {broken}'
        )
        tested = await call(k, "skill_manage", name="shop-sums", action="test")
        assert (tested["passed"], "the output is" in tested["stderr"]) == (False, True)
        waits = await k.runs.start("async def main(input):\n    await kernel.receive('go')")
        with pytest.raises(Conflict, match=r"run\.not_completed"):
            await call(k, "skill_save", name="other", from_run=waits.id)
        with pytest.raises(ArgumentError, match="from_run"):
            await call(k, "skill_save", name="other", from_run=handle.id, text="x")
        with pytest.raises(NotFound):
            await call(k, "run_start", skill="none-such", input={})

    opened(tmp_path / "state", act)


CAGED = """
import json, os, socket, sys
said = {}
def tried(name, act):
    try:
        said[name] = ["did", repr(act())[:80]]
    except BaseException as error:
        said[name] = ["refused", type(error).__name__]
secret, port = sys.argv[1], int(sys.argv[2])
tried("read outside", lambda: open(secret).read())
tried("read state", lambda: os.listdir(os.path.dirname(secret)))
skill = os.environ["SKILL"]
tried("write", lambda: open(os.path.join(skill, "SKILL.md"), "a").write("x"))
tried("plant", lambda: open(os.path.join(skill, "planted"), "w").write("x"))
tried("remove", lambda: os.unlink(os.path.join(skill, "SKILL.md")))
tried("chmod", lambda: os.chmod(os.path.join(skill, "SKILL.md"), 0o777))
tried("connect", lambda: socket.create_connection(("127.0.0.1", port), 2))
print(json.dumps(said))
"""
BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_a_script_cannot_leave_its_cage(tmp_path, tier):
    skills = tmp_path / "state" / "skills"
    write(skills / "caged", scripts__try_py=CAGED, scripts__bomb_py=BOMB)
    (tmp_path / "state").chmod(0o700)
    secret = tmp_path / "state" / "secret"
    secret.write_text("secret")

    async def act(k):
        if k.sandbox.tier != tier:
            pytest.fail(f"this host has tier {k.sandbox.tier}")
        with socket.create_server(("127.0.0.1", 0)) as server:
            args = [str(secret), str(server.getsockname()[1])]
            result = await call(k, "skill_run", name="caged", script="scripts/try.py", args=args)
        said = json.loads(result.stdout)
        assert {name for name, (what, _) in said.items() if what != "refused"} == set(), said
        bombed = await call(k, "skill_run", name="caged", script="scripts/bomb.py", timeout_s=20)
        assert bombed.stopped_by in ("processes", "cpu")
        assert sorted(p.name for p in (skills / "caged").rglob("*")) == ["SKILL.md", "bomb.py", "scripts", "try.py"]
        assert (await call(k, "skill_load", name="caged")).body == "Run scripts/tally.py."

    opened(tmp_path / "state", act, tier=tier)


@pytest.fixture
def everybodys():
    """A folder that the uid of a sandbox can walk to, too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


OUT = """
import json, os, sys
given = json.load(sys.stdin)
assert json.load(open("input.json")) == given
path = "/output" if os.path.islink("/output") else os.environ["OUTPUT"]
with open(os.path.join(path, "report.txt"), "w") as file:
    file.write(given["word"] + open(given["file"]).read())
"""


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_a_script_gets_its_input_sees_a_shared_folder_and_its_output_comes_back(tmp_path, everybodys, tier):
    shared = everybodys / "work"
    write(
        shared / ".agents" / "skills" / "report", scripts__out_py=OUT, scripts__out_sh='echo $(cat) > "$OUTPUT/said"\n'
    )
    (shared / "data.txt").write_text(" of the folder")
    grants = Grants(folders=(Folder(shared),))

    async def act(k):
        given = {"word": "the word", "file": str(shared / "data.txt")}
        result = await call(k, "skill_run", grants, name="report", script="scripts/out.py", input=given)
        assert (result.exit_code, [f.path for f in result.files]) == (0, ["output/report.txt"]), result.stderr
        assert (await k.sandbox.read(uri=result.files[0].uri)).data == b"the word of the folder"
        result = await call(k, "skill_run", grants, name="report", script="scripts/out.sh", input={"a": 1})
        assert [f.path for f in result.files] == ["output/said"]
        with pytest.raises(NotFound):
            await call(k, "skill_run", Grants(), name="report", script="scripts/out.py")

    opened(tmp_path / "state", act, tier=tier)


def test_what_is_not_built_is_refused_by_name():
    tool = named("skill_run", TOOLS)
    with pytest.raises(KernelError, match=r"argument\.unknown: .*'session'"):
        tool.convert({"name": "x", "script": "y", "session": "s"})
    with pytest.raises(CallerError, match=r"argument\.missing"):
        named("skill_save", TOOLS).convert({"text": "x"})
