"""mcp_server/commands.py, __main__.py: the command line, its exit status, and what a start that fails tells a person."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_kernel import Kernel, open_skills
from agent_kernel_mcp import commands as cli
from agent_kernel_mcp.__main__ import main
from agent_kernel_mcp.places import printable, state_folder

sys.path.insert(0, str(Path(__file__).parent))
from skillsets import write

COMMAND = [sys.executable, "-m", "agent_kernel_mcp"]


def run(*arguments, stdin="", env=None, **kwargs):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60, env=env, **kwargs
    )


def test_the_state_folder_is_the_first_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    environ = {"AGENT_KERNEL_HOME": "/b", "XDG_STATE_HOME": "/c"}
    assert state_folder("/a", environ) == Path("/a")
    assert state_folder(None, environ) == Path("/b")
    assert state_folder(None, {"XDG_STATE_HOME": "/c"}) == Path("/c/agent-kernel")
    assert state_folder(None, {"AGENT_KERNEL_HOME": "", "XDG_STATE_HOME": ""}) == Path(
        "/home/me/.local/state/agent-kernel"
    )
    monkeypatch.chdir(tmp_path)
    assert state_folder("here", environ) == tmp_path / "here"


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("mcp", "--nonsense"), ("mcp", "--tier", "some"), ("approve",), ("skill",)]
)
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_verb_of_another_part_gets_its_arguments_untouched(monkeypatch, capsys):
    monkeypatch.setattr(cli, "ELSEWHERE", {"bench": ("json.tool_that_is_missing", "bench")})
    assert main(["bench", "--", "--x"]) == 1
    assert "agent-kernel[bench]" in capsys.readouterr().err


def test_conformance_lists_its_clauses_through_this_command():
    done = run("conformance", "list")
    assert done.returncode == 0
    assert "protocol." in done.stdout


def test_a_folder_without_state_is_named_as_such(tmp_path, capsys):
    assert main(["items", "--state", str(tmp_path / "misspelt")]) == 0
    assert f"no kernel state in {tmp_path / 'misspelt'}" in capsys.readouterr().out


def test_nothing_waits_where_there_is_no_state(tmp_path, capsys):
    assert main(["items", "--state", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "none").exists()


def test_deciding_or_asking_without_a_kernel_is_status_1(tmp_path, capsys):
    assert main(["approve", "itm_aaaaaaaaaaaa", "--state", str(tmp_path / "none")]) == 1
    assert "item.unknown" in capsys.readouterr().err
    assert main(["status", "--state", str(tmp_path / "none")]) == 1
    assert "kernel.not_running" in capsys.readouterr().err


def test_what_a_guest_wrote_cannot_move_the_cursor():
    assert printable("ok\x1b[2Jgone\r\u202eabc\n") == "ok [2Jgone  abc "


ASKS = "async def main(input):\n    return await kernel.approve('Really?\\x1b[2J', details={'n': 1})"


def waiting_item(state):
    async def start():
        async with Kernel.open(state) as k:
            handle = await k.runs.start(ASKS, wait_s=20)
            return (await k.runs.view(handle.id))["waiting"][0]["item_id"]

    return asyncio.run(asyncio.wait_for(start(), 60))


def test_a_person_sees_what_is_decided_before_it_is(tmp_path, capsys):
    state = tmp_path / "s"
    item = waiting_item(state)
    assert main(["items", "--state", str(state)]) == 0
    assert "Really? [2J" in capsys.readouterr().out
    assert main(["deny", item, "--state", str(state)]) == 0
    told = capsys.readouterr().out
    assert told.index("Really?") < told.index(f"{item}: denied.")
    assert '{"n": 1}' in told
    assert main(["approve", item, "--state", str(state)]) == 1
    assert "item.closed" in capsys.readouterr().err


def test_at_a_terminal_an_approval_is_asked_for_once_more(tmp_path, capsys, monkeypatch):
    state = tmp_path / "s"
    item = waiting_item(state)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert main(["approve", item, "--state", str(state)]) == 1
    assert "still waiting" in capsys.readouterr().out
    assert main(["approve", item, "--yes", "--state", str(state)]) == 0


def test_skill_folders_are_validated_one_json_object_a_line(tmp_path, capsys):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, text in (
        (good, "---\nname: good\ndescription: Does good things.\n---\nBody\n"),
        (bad, "no frontmatter"),
    ):
        folder.mkdir()
        (folder / "SKILL.md").write_text(text)
    assert main(["skill", "validate", str(good), str(bad), "--json"]) == 1
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [verdict["path"] for verdict in verdicts] == [str(good), str(bad)]
    assert [verdict["strict"]["valid"] for verdict in verdicts] == [True, False]
    assert main(["skill", "validate", str(good)]) == 0
    assert "valid" in capsys.readouterr().out


# --- a start that fails


def failed_start(*arguments, env=None):
    done = run("mcp", "--standalone", *arguments, env=env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("agent-kernel: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_taken_folder_is_refused_with_the_pid_of_its_owner(tmp_path):
    tmp_path.chmod(0o700)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, b"4242")
    try:
        assert "state.locked" in (line := failed_start("--state", tmp_path))
        assert "4242" in line
    finally:
        os.close(lock)


def test_a_config_that_does_not_parse_is_a_refusal_to_start(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "config.toml").write_text("folders = [\n")
    assert "config.invalid" in failed_start("--state", tmp_path)
    (tmp_path / "config.toml").write_text("floders = []\n")
    assert "'folders'" in failed_start("--state", tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "kernel.db").write_bytes(b"no database at all" * 1000)
    assert "state.damaged" in failed_start("--state", tmp_path)


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path):
    import sqlite3

    tmp_path.chmod(0o700)
    with sqlite3.connect(tmp_path / "kernel.db") as db:
        db.execute("PRAGMA user_version=4711")
    db.close()
    assert "4711" in (line := failed_start("--state", tmp_path))
    assert "state.newer" in line


def test_a_shared_folder_that_is_not_there_is_a_refusal_to_start(tmp_path):
    assert "config.invalid" in failed_start("--state", tmp_path / "s", "--folder", tmp_path / "missing")


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "s").write_text("")
    assert "state.not_a_folder" in failed_start("--state", tmp_path / "s")


def skilled(tmp_path):
    """A state folder with a shared folder's skill, and one that an agent wrote twice."""
    state, shared = tmp_path / "state", tmp_path / "work"
    write(shared / ".agents" / "skills" / "tally", description='"Counts \\e[2J."', scripts__tally_py="print(1)")

    async def act():
        async with open_skills(state) as skills:
            for word in ("first", "second"):
                await skills.save("mine", text=f"---\nname: mine\ndescription: Mine.\n---\n{word}\n")
                await skills.manage("mine", "promote")
            await skills.save("mine", text="third", old="second")

    asyncio.run(act())
    return state, shared


def test_a_person_approves_the_bytes_that_were_shown_and_takes_it_back(tmp_path, capsys):
    state, shared = skilled(tmp_path)
    common = ["--state", str(state), "--folder", str(shared)]
    assert main(["skill", "approve", "tally", *common, "--note", "read it"]) == 0
    said = capsys.readouterr().out
    assert "scripts/tally.py" in said
    assert "\x1b" not in said
    assert main(["skill", "list", *common, "--json"]) == 0
    rows = {row["uri"]: (row["trust"], row["state"]) for row in json.loads(capsys.readouterr().out)["skills"]}
    assert rows["skill://project/work/tally/SKILL.md"] == ("trusted", "current")
    assert rows["skill://agent/mine/SKILL.md"] == ("agent", "current")
    assert rows["skill://draft/mine/SKILL.md"] == ("agent", "draft")
    (shared / ".agents/skills/tally/scripts/tally.py").write_text("print(2)")
    assert main(["skill", "approve", "tally", *common]) == 0
    said = capsys.readouterr().out
    assert "-print(1)" in said
    assert "+print(2)" in said
    assert main(["skill", "revoke", "tally", *common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trust"] == "community"
    assert main(["skill", "approve", "none", *common]) == 1
    assert "skill.unknown" in capsys.readouterr().err


def test_skills_are_rolled_back_exported_and_imported_from_a_terminal(tmp_path, capsys):
    state, _ = skilled(tmp_path)
    common = ["--state", str(state), "--json"]
    assert main(["skill", "rollback", "mine", *common]) == 0
    rolled = json.loads(capsys.readouterr().out)
    assert main(["skill", "export", "mine", str(tmp_path / "out"), *common]) == 0
    assert (tmp_path / "out/mine/SKILL.md").read_text().endswith("first\n")
    capsys.readouterr()
    assert main(["skill", "import", str(tmp_path / "out/mine"), "--state", str(tmp_path / "other"), "--json"]) == 0
    brought = json.loads(capsys.readouterr().out)
    assert (brought["revision"], brought["trust"]) == (rolled["revision"], "agent")
    assert main(["skill", "history", "mine", "--state", str(state)]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if "T" in line.split()[0]][:3] == [
        "rollback",
        "save",
        "promote",
    ]
