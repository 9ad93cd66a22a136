"""The tour: it shows what holds, and notices what does not. The lying servers here answer as a broken kernel would."""

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import sys

import pytest
from agent_kernel_mcp import tour as tour_module
from agent_kernel_mcp.tour import Broken, Tour
from agent_kernel_mcp.tour_page import Page


def lying(tmp_path, answer):
    """A tour whose server is `answer(tool, arguments)`."""

    class Lying(Tour):
        async def call(self, tool, *, named="", refused=False, **arguments):  # noqa: ARG002
            return answer(tool, arguments)

    made = Lying(Page(), tmp_path, tmp_path / "state", io.StringIO())
    made._prepare()
    return made


def unwalled(tool, arguments):
    """A sandbox that is none: the code runs as we do."""
    limits = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); raise SystemExit"
    code = limits if "fork" in arguments["code"] else arguments["code"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=arguments.get("stdin", ""), capture_output=True, text=True, timeout=20
    )
    return {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def test_a_sandbox_that_refuses_nothing_is_noticed(tmp_path):
    liar = lying(tmp_path, unwalled)
    asyncio.run(liar.refuse())
    assert len(liar.page.failures) == 3, liar.page.failures


def test_a_wrong_analysis_is_noticed(tmp_path):
    liar = lying(tmp_path, lambda *_: {"exit_code": 0, "stdout": '{"birds": 342, "all": 0.24}'})
    asyncio.run(liar.analyse())
    assert len(liar.page.failures) == 2


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, 0),
        ({"attempts": 2}, 1),
        ({"ended_at": "2026-01-01T00:00:09Z"}, 1),
        ({"note": "(end)"}, 1),
        ({"note": "double"}, 1),
    ],
)
def test_a_step_that_ran_twice_or_a_line_written_twice_is_noticed(tmp_path, changed, failing):
    groups = sorted(tour_module._means())
    note = changed.get("note", "\n".join([*groups, "(end)"]))
    if note == "double":
        note = "\n".join([groups[0], *groups, "(end)"])
    steps = [
        {"n": n, "kind": "step", "status": "completed", "attempts": 1, "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:01Z"}
        for n in range(6)
    ]  # fmt: skip
    after = [dict(step) for step in steps]
    after[1] |= {name: value for name, value in changed.items() if name != "note"}

    def answer(tool, arguments):
        return {"steps": after} if tool == "run_get" else {"blocks": [{"label": "n", "text": note}]}

    liar = lying(tmp_path, answer)
    asyncio.run(liar._check_once("run_x", "n", steps[:3]))
    assert len(liar.page.failures) == failing


def test_a_memory_that_forgot_is_noticed(tmp_path):
    liar = lying(tmp_path, lambda tool, _: {"items": [{"id": "mem_1"}]} if tool == "memory_add" else {"hits": []})
    asyncio.run(liar.remember("run_x"))
    assert len(liar.page.failures) == 2


def test_an_approval_by_the_model_is_noticed(tmp_path):
    waiting = [{"item_id": "itm_1", "digest": "d"}]

    def answer(tool, arguments):
        return {"run_id": "run_1", "status": "completed", "output": {"published": True}, "waiting": waiting}

    liar = lying(tmp_path, answer)
    asyncio.run(liar.ask_a_person())
    assert len(liar.page.failures) == 3, liar.page.failures


def test_the_tour_kills_only_a_child_of_its_own(tmp_path):
    liar = lying(tmp_path, lambda *_: {})
    for pid in (0, 1, os.getpid(), os.getppid()):
        with pytest.raises(Broken):
            asyncio.run(liar.kill(pid))


def test_a_form_is_filled_in_by_somebody_who_agrees():
    schema = {
        "properties": {
            "decision": {"type": "string", "enum": ["approve", "deny"]},
            "sure": {"type": "boolean"},
            "note": {"type": "string"},
        }
    }
    assert tour_module._yes(schema) == {"decision": "approve", "sure": True}


def test_a_failed_claim_is_printed_as_failed(capsys):
    page = Page()
    page.claim("one", "two", holds=False)
    page.end(1.0, "last words")
    shown = capsys.readouterr().out
    assert "FAILED" in shown
    assert "last words" in shown
    assert "held" not in shown


def test_the_data_set_is_the_one_whose_licence_is_named():
    digest = hashlib.sha256(tour_module.PENGUINS.read_bytes()).hexdigest()
    readme = (tour_module.DATA / "README.md").read_text()
    assert digest in readme
    assert "CC0 1.0" in readme


def test_the_whole_tour_holds_on_this_machine(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from agent_kernel_mcp.tour import main; sys.exit(main([]))"],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "claims held" in done.stdout
    assert "agent-kernel approve itm_" in done.stdout
    [install] = [line.split() for line in done.stdout.splitlines() if "install claude-code" in line]
    assert shutil.which(install[1]), "a command that the tour tells to run can be run as it stands"
    assert "Traceback" not in done.stderr
    assert list(temporary.iterdir()) == [], "the tour left nothing behind"
