"""mcp_server/hosts.py: the entry of each host, and the merge that keeps everything else."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
import yaml
from agent_kernel.base.errors import HostError
from agent_kernel_mcp.__main__ import main
from agent_kernel_mcp.hosts import HOSTS, command, entry, merge, rendered

COMMAND = str(Path(sys.executable).parent / "agent-kernel")


def test_the_command_is_this_installation_s_own_by_absolute_path():
    assert command() == [COMMAND]
    assert os.access(COMMAND, os.X_OK)


@pytest.mark.parametrize(
    ("name", "key", "fields"),
    [
        ("claude-code", "mcpServers", {"type": "stdio", "command": COMMAND, "args": ["mcp", "--folder", "/a"]}),
        ("claude-desktop", "mcpServers", {"command": COMMAND, "args": ["mcp", "--folder", "/a"]}),
        ("cursor", "mcpServers", {"command": COMMAND, "args": ["mcp", "--folder", "/a"]}),
        ("vscode", "servers", {"type": "stdio", "command": COMMAND, "args": ["mcp", "--folder", "/a"]}),
        ("zed", "context_servers", {"command": COMMAND, "args": ["mcp", "--folder", "/a"]}),
        ("goose", "extensions", {"type": "stdio", "cmd": COMMAND, "args": ["mcp", "--folder", "/a"], "enabled": True}),
    ],
)
def test_each_host_gets_its_own_form(name, key, fields):
    text = rendered(HOSTS[name], ["--folder", "/a"])
    whole = yaml.safe_load(text) if name == "goose" else json.loads(text)
    assert list(whole) == [key]
    assert fields.items() <= whole[key]["agent-kernel"].items()


def test_a_merge_keeps_everything_else_and_a_copy(tmp_path):
    file = tmp_path / "mcp.json"
    before = (
        '{\n    "other": [1, "é"],\n    "mcpServers": {"a": {"command": "x"}, "agent-kernel": {"command": "old"}}\n}'
    )
    file.write_text(before)
    file.chmod(0o600)
    kept = merge(HOSTS["cursor"], file, [])
    whole = json.loads(file.read_text())
    assert whole["other"] == [1, "é"]
    assert whole["mcpServers"] == {"a": {"command": "x"}, "agent-kernel": entry(HOSTS["cursor"], [])}
    assert "é" in file.read_text()
    assert '\n    "other"' in file.read_text()
    assert kept is not None
    assert kept.read_text() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_not_there_is_made_with_its_folder(tmp_path):
    file = tmp_path / "a/b/mcp.json"
    assert merge(HOSTS["vscode"], file, []) is None
    assert json.loads(file.read_text())["servers"]["agent-kernel"]["type"] == "stdio"


@pytest.mark.parametrize("before", ['{"a": 1,}', '{\n// mine\n"a": 1}', "[1]", '{"mcpServers": []}', "\ufeff{}"])
def test_a_file_that_does_not_parse_is_refused_untouched(tmp_path, before):
    file = tmp_path / "mcp.json"
    file.write_text(before)
    with pytest.raises(HostError, match=r"install\.unparsed"):
        merge(HOSTS["cursor"], file, [])
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("{}")
    link.symlink_to(real)
    merge(HOSTS["cursor"], link, [])
    assert link.is_symlink()
    assert "agent-kernel" in real.read_text()


GOOSE = """# mine
GOOSE_MODEL: x
extensions:   # all of them
    developer:
        enabled: true   # keep
        type: builtin
other: [1, 2]
"""


@pytest.mark.parametrize(
    "before",
    [
        GOOSE,
        "GOOSE_MODEL: x\n",
        "extensions: {}\n",
        "extensions:\n# nothing yet\nother: 1\n",
        "extensions:\n  agent-kernel:\n    cmd: old\n    args:\n    - a\n\n  z: {type: builtin}\nother: 1\n",
    ],
)
def test_yaml_keeps_its_comments_and_everything_else(tmp_path, before):
    file = tmp_path / "config.yaml"
    file.write_text(before)
    merge(HOSTS["goose"], file, ["--folder", "/a b"])
    merge(HOSTS["goose"], file, ["--folder", "/a b"])  # twice is once
    was, now = yaml.safe_load(before), yaml.safe_load(file.read_text())
    wanted = {k: v for k, v in (was.get("extensions") or {}).items() if k != "agent-kernel"}
    assert now == {**was, "extensions": {**wanted, "agent-kernel": entry(HOSTS["goose"], ["--folder", "/a b"])}}
    for line in before.splitlines():
        if "#" in line:
            assert line in file.read_text().splitlines()


@pytest.mark.parametrize("before", ["extensions: {a: {b: 1}}\n", "extensions: [1]\n", "- 1\n", "a: [\n"])
def test_yaml_that_cannot_be_edited_safely_is_refused_untouched(tmp_path, before):
    file = tmp_path / "config.yaml"
    file.write_text(before)
    with pytest.raises(HostError, match=r"install\.unparsed"):
        merge(HOSTS["goose"], file, [])
    assert file.read_text() == before


def test_install_prints_and_writes_only_when_told(tmp_path, capsys):
    file = tmp_path / "mcp.json"
    arguments = ["install", "cursor", "--file", str(file), "--folder", f"{tmp_path}:rw", "--state", str(tmp_path / "s")]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)["mcpServers"]["agent-kernel"]
    assert printed["args"] == ["mcp", "--state", str(tmp_path / "s"), "--folder", f"{tmp_path}:rw"]
    assert not file.exists()
    assert main([*arguments, "--write"]) == 0
    assert json.loads(file.read_text())["mcpServers"]["agent-kernel"] == printed


def test_an_unknown_host_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as left:
        main(["install", "emacs"])
    assert left.value.code == 2
    assert "claude-code" in capsys.readouterr().err
