"""Opening and closing: one kernel per folder, what status says, what is left behind."""

import asyncio
import importlib.metadata
import os
import sys
from pathlib import Path

import agent_kernel
import pytest
from agent_kernel import HostError, Kernel, Limits

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, program, rested, until


def test_the_public_face_has_at_most_thirty_names_and_each_is_there():
    assert len(agent_kernel.__all__) <= 30
    assert all(hasattr(agent_kernel, name) for name in agent_kernel.__all__)


def test_a_taken_folder_is_refused_with_its_owner_and_free_again_after_the_close(tmp_path):
    async def act(k):
        with pytest.raises(HostError) as refused:
            async with Kernel.open(tmp_path / "s"):
                pass
        return str(refused.value)

    text = opened(tmp_path / "s", act)
    assert "state.locked" in text
    assert str(os.getpid()) in text
    assert opened(tmp_path / "s", lambda k: k.runs.list()) == {"runs": [], "more": False}


def test_the_example_of_the_docstring_runs(tmp_path):
    async def main():
        async with Kernel.open(str(tmp_path / "state")) as k:
            r = await k.sandbox.run("print(6*7)")
            h = await k.runs.start("async def main(input): return input", {"x": 1})
            return r.stdout, await h.result(), await h.status()

    assert asyncio.run(main()) == ("42\n", {"x": 1}, "completed")


def test_status_tells_what_is_going_on(tmp_path):
    async def act(k):
        handle = await k.runs.start(program("await kernel.approve('?')"))
        await rested(k, handle.id)
        return await k.status()

    status = opened(tmp_path / "s", act)
    assert status.pid == os.getpid()
    assert status.runs == {"input_required": 1}
    assert status.tier in ("full", "confined", "none")
    assert status.commits > 0


def test_runs_go_on_by_themselves_when_the_next_kernel_opens(tmp_path):
    async def start(k):
        handle = await k.runs.start(
            program(
                "a = await kernel.step('one', lambda: 1)\nawait kernel.sleep(0.4)\nreturn [a, await kernel.step('two', lambda: 2)]"
            )
        )
        await until(k, handle.id, lambda v: len(v["steps"]) == 2, view="steps")
        return handle.id

    run_id = opened(tmp_path / "s", start)

    async def look(k):
        seen = await rested(k, run_id)
        return seen, await k.runs.view(run_id, "events")

    seen, events = opened(tmp_path / "s", look)
    assert seen["output"] == [1, 2]
    assert [e["event"] for e in events["events"]].count("started") == 2
    assert [e["n"] for e in events["events"] if e["event"] == "delivery"] == [0, 1, 2]


def test_nothing_is_left_behind(tmp_path):
    """Descriptors and children of this process, and its tasks: the same before and after."""

    def left():
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return len(list(Path("/proc/self/fd").iterdir())), children

    async def act(k):
        handles = [
            await k.runs.start(program(body))
            for body in ("return 1", "await kernel.approve('?')", "await kernel.receive('t')")
        ]
        await handles[0].result()
        await rested(k, handles[1].id)

    opened(tmp_path / "warm", act)
    before = left()
    opened(tmp_path / "s", act)
    assert left() == before


def test_limits_and_grants_of_the_config_file_hold_unless_they_are_given(tmp_path):
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text("approve_in_host = true\n[limits]\nmemory_mb_max = 128\n")

    async def main(**options):
        async with Kernel.open(state, **options) as k:
            return k.limits.memory_mb_max, k.policy.grants.approve_in_host

    assert asyncio.run(main()) == (128, True)
    assert asyncio.run(main(limits=Limits(memory_mb_max=64))) == (64, True)


def test_the_version_is_that_of_the_distribution():
    assert agent_kernel.__version__ == importlib.metadata.version("agent-kernel")


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_a_kernel_that_was_started_with_a_narrow_umask_runs_skills(tmp_path, tier):
    skill = tmp_path / "state/skills/tally"
    (skill / "scripts").mkdir(parents=True)
    (tmp_path / "state").chmod(0o700)
    (skill / "SKILL.md").write_text("---\nname: tally\ndescription: Counts.\n---\n")
    (skill / "scripts/count.py").write_text("print(1 + 1)\n")

    async def act(k):
        invocation = await k.skills.script("tally", "scripts/count.py")
        return await k.sandbox.run(invocation.code, language=invocation.language, skill=invocation.skill_folder)

    before = os.umask(0o077)
    try:
        assert opened(tmp_path / "state", act, tier=tier).stdout == "2\n"
    finally:
        os.umask(before)
