"""mcp_server/doctor.py: what this machine can isolate, and what is missing."""

import json
from pathlib import Path

import pytest
from agent_kernel_mcp import doctor
from agent_kernel_mcp.__main__ import main


@pytest.fixture(scope="module")
def report():
    return doctor.examine(Path("/nowhere/state"))


def test_the_report_names_the_tier_each_layer_and_each_check(report):
    assert report["tier"] in ("full", "confined", "none")
    layers = {layer["name"]: layer["works"] for layer in report["sandbox"]["layers"]}
    assert {"seccomp", "landlock"} <= set(layers)
    assert {"python", "sqlite", "state folder", "mcp"} <= {check["name"] for check in report["checks"]}
    assert report["usable"] == (report["tier"] != "none" and all(check["fine"] for check in report["checks"]))
    json.dumps(report)


def test_control_groups_are_there_or_the_reason_is(report):
    [group] = [layer for layer in report["sandbox"]["layers"] if layer["name"] == "cgroup"]
    assert group["detail"]
    assert not group["works"] or {"memory", "processes"} <= set(group["detail"].split(", "))


def test_the_text_shows_every_layer_and_check(report):
    text = doctor.as_text(report)
    for part in (*report["sandbox"]["layers"], *report["checks"]):
        assert part["name"] in text
    assert f"tier: {report['tier']}" in text


def test_what_is_missing_comes_with_the_line_that_gets_it(report, monkeypatch):
    monkeypatch.setattr(doctor, "file_system_of", lambda _: "nfs4")
    monkeypatch.setattr(doctor, "SQLITE_LEAST", (99, 0))
    checks = {check["name"]: check for check in (doctor._folder(Path("/nowhere")), doctor._sqlite())}
    assert not checks["state folder"]["fine"]
    assert "--state" in checks["state folder"]["help"]
    assert not checks["sqlite"]["fine"]
    text = doctor.as_text({**report, "checks": list(checks.values())})
    assert checks["sqlite"]["help"] in text


def test_the_state_folder_is_not_made(tmp_path, capsys):
    assert main(["doctor", "--json", "--state", str(tmp_path / "s")]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["host"]["system"].startswith("Linux ")
    assert not (tmp_path / "s").exists()
