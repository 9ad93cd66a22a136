"""The conformance suite's own promises: clauses, checks and twins fit together, reports tell the truth, every check can fail."""

import asyncio
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from agent_kernel_conformance import report, spec
from agent_kernel_conformance.__main__ import main
from agent_kernel_conformance.broken import TWINS
from agent_kernel_conformance.broken.trial import behind, own_verdicts, share_passed
from agent_kernel_conformance.registry import CHECKS, CLAUSES, HERE, check, parse, profile
from agent_kernel_conformance.subject import Subject, Workplace
from agent_kernel_conformance.suite import Verdict, prepare_state, run_suite

KERNEL = [
    sys.executable,
    "-m",
    "agent_kernel_mcp",
    "mcp",
    "--standalone",
    "--state",
    "{state}",
    "--folder",
    "~/shared:rw",
]
OBSERVABLE = [clause for clause in CLAUSES.values() if clause.observable]
MUSTS = [clause for clause in OBSERVABLE if clause.level == "MUST"]

SPEAKS_BUT_DOES_NOTHING = """
import json, sys
for line in sys.stdin:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        continue
    if isinstance(message, dict) and "id" in message and "method" in message:
        result = {}
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "n", "version": "0"}}
        elif message["method"] == "tools/list":
            result = {"tools": []}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.fixture
def nothing(tmp_path):
    script = tmp_path / "nothing.py"
    script.write_text(SPEAKS_BUT_DOES_NOTHING)
    return [sys.executable, str(script)]


# --- clauses, checks, twins, profile, specification


def test_every_clause_has_a_check_and_every_check_a_clause():
    assert {clause.id for clause in OBSERVABLE} == set(CHECKS)


def test_every_must_has_a_broken_twin():
    assert {clause.id for clause in MUSTS} - set(TWINS) == set()
    assert all(twin.lie for twin in TWINS.values())


def test_a_clause_without_a_check_says_why():
    unseen = [clause for clause in CLAUSES.values() if clause.id not in CHECKS]
    assert all(len(clause.excluded) > 20 or clause.status != "active" for clause in unseen)


def test_the_profiles_name_clauses_only():
    files = sorted((HERE / "profiles").glob("*.toml"))
    assert [file.stem for file in files] == ["0.1"]
    for file in files:
        assert set(profile(file.stem)) <= set(CLAUSES)


def test_the_specification_holds_every_clause_word_for_word(monkeypatch):
    assert spec.drift() == []
    changed = CLAUSES["memory.key.supersedes"]
    monkeypatch.setitem(CLAUSES, changed.id, type(changed)(changed.id, "MAY", "x", "0.1", "y"))
    monkeypatch.delitem(CLAUSES, "memory.search.as-of")
    assert [line.partition("**")[2][:21] for line in spec.drift()] == ["memory.key.supersedes", ""]
    assert "memory.search.as-of" in spec.drift()[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[clause."memory.add"]\nlevel = "MUST"', "is not memory.feature.behaviour"),
        ('[clause."skills.a.b"]\nlevel = "MUST"', "is not memory.feature.behaviour"),
        ('[clause."memory.a.b"]\nlevel = "MUST"\nweight = 3', "'weight'"),
        ('[clause."memory.a.b"]\nlevel = 1', "'level'"),
        ('[clause."memory.a.b"]\nlevel = "ALWAYS"\ntext = "t"\nsince = "0.1"\nobserve = "o"', "unknown level"),
        ('[clause."memory.a.b"]\nlevel = "MUST"\ntext = "t"\nsince = "0.1"\nobserve = "o"\nneeds = ["x"]', "need"),
    ],
)
def test_a_clause_that_is_none_is_refused(text, told):
    with pytest.raises(ValueError, match="memory") as refusal:
        parse("memory", text)
    assert told in str(refusal.value)


def test_a_check_of_an_unknown_clause_or_a_second_check_fails_at_import():
    with pytest.raises(KeyError):
        check("memory.add.no-such-thing")
    with pytest.raises(ValueError, match="has a check already"):
        check("memory.add.can-be-found")


# --- reports and the command


def verdict(clause, status, detail=""):
    return Verdict(clause, CLAUSES[clause].level, status, detail, 0.5)


SEEN = [
    verdict("memory.add.can-be-found", "pass"),
    verdict("memory.key.supersedes", "fail", "superseded is [] & <nothing>"),
    verdict("memory.search.as-of", "untestable", "no tool"),
    verdict("memory.search.stems-and-ignores-stop-words", "warn", "found nothing"),
    verdict("protocol.resources.status-is-readable", "na", "not declared"),
]


def of(verdicts, expected=()):
    return report.Report(["x"], "x", verdicts, dict.fromkeys(expected, "known"), 1.0)


@pytest.mark.parametrize(
    ("verdicts", "expected", "exit_status"),
    [
        (SEEN[:1], [], 0),
        (SEEN[:2], [], 1),
        (SEEN[:2], ["memory.key.supersedes"], 0),
        (SEEN[:1], ["memory.add.can-be-found"], 1),
        (SEEN[2:3], [], 1),
        (SEEN[2:3], ["memory.search.as-of"], 0),
        (SEEN[3:], [], 0),
        (SEEN[4:], ["protocol.resources.status-is-readable"], 1),
    ],
)
def test_the_exit_status_counts_musts_and_a_stale_baseline(verdicts, expected, exit_status):
    assert of(verdicts, expected).exit_status == exit_status


def test_the_text_report_names_what_did_not_pass_with_its_clause():
    text = of(SEEN).render("text")
    assert "memory.add.can-be-found" not in text
    assert "fail       MUST   memory.key.supersedes" in text
    assert CLAUSES["memory.key.supersedes"].text in text
    assert text.splitlines()[-1] == "x: 1 pass, 1 fail, 1 warn, 1 na, 1 untestable in 1.0 s"


def test_the_json_report_carries_every_verdict():
    table = json.loads(of(SEEN, ["memory.key.supersedes"]).render("json"))
    assert [row["clause"] for row in table["verdicts"]] == [row.clause for row in SEEN]
    assert table["unexpected"] == ["memory.search.as-of"]
    assert table["counts"] == {"pass": 1, "fail": 1, "warn": 1, "na": 1, "untestable": 1}


def test_the_junit_report_is_xml_with_failures_and_skips():
    tree = ET.fromstring(of(SEEN).render("junit"))
    memory = tree.find("testsuite[@name='memory']")
    assert (memory.get("tests"), memory.get("failures"), memory.get("skipped")) == ("4", "2", "0")
    assert tree.find("testsuite[@name='protocol']").get("skipped") == "1"
    assert memory.find("testcase[@name='memory.key.supersedes']/failure").text == "superseded is [] & <nothing>"


@pytest.mark.parametrize(
    "text", ["[expected]\n'no.such.clause' = 'x'", "[expected]\n'memory.search.as-of' = ' '", "= 1"]
)
def test_a_baseline_that_is_none_is_wrong_usage(tmp_path, text, capsys):
    (tmp_path / "b.toml").write_text(text)
    assert main(["run", "--baseline", str(tmp_path / "b.toml"), "--", "true"]) == 2
    assert capsys.readouterr().err.startswith("agent-kernel conformance run: ")


@pytest.mark.parametrize(
    "argv",
    [[], ["run"], ["run", "--clause", "no.such.clause", "--", "x"], ["run", "--report", "pdf", "--", "x"], ["explain", "x"],
     ["run", "--profile", "9.9", "--", "x"], ["run", "--clause", "durable.step.is-on-disk-before-it-counts", "--", "x"]],
)  # fmt: skip
def test_wrong_usage_is_status_2(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().out == ""


def test_list_and_explain_show_the_clause(capsys, tmp_path):
    assert main(["list", "--area", "skills"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == sum(clause.area == "skills" for clause in CLAUSES.values())
    (tmp_path / "last.json").write_text(of(SEEN).render("json"))
    assert main(["explain", "memory.key.supersedes", "--last", str(tmp_path / "last.json")]) == 0
    told = capsys.readouterr().out
    assert CLAUSES["memory.key.supersedes"].text in told
    assert "checks/memory.py" in told
    assert "last run (x): fail superseded is []" in told


# --- subjects


def test_a_server_that_does_nothing_fails_nearly_everything(nothing):
    verdicts = asyncio.run(run_suite(nothing, OBSERVABLE))
    assert [row.clause for row in verdicts] == [clause.id for clause in OBSERVABLE]
    passed = [row.clause for row in verdicts if row.status == "pass"]
    assert set(passed) <= {row for row in passed if row.startswith("protocol.")}
    assert len(passed) <= 4


def test_a_command_that_does_not_speak_is_untestable():
    clause = CLAUSES["memory.add.can-be-found"]
    for command in (["/no/such/command"], [sys.executable, "-c", "import sys; sys.exit('no licence')"]):
        [row] = asyncio.run(run_suite(command, [clause]))
        assert (row.status, row.failed) == ("untestable", True)
    assert "no licence" in row.detail


def test_the_state_folder_stands_in_the_command_and_the_environment_does_not_leak(nothing, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    place = Workplace.make(prepare_state)
    subject = Subject([*nothing, "--state={state}"], place)

    async def look():
        await subject.start()
        try:
            return Path(f"/proc/{subject.process.pid}/environ").read_bytes()
        finally:
            await subject.stop()

    environment = asyncio.run(look())
    place.remove()
    assert subject.argv[-1] == f"--state={place.state}"
    assert f"AGENT_KERNEL_HOME={place.state}".encode() in environment
    assert b"SECRET_OF_THE_CALLER" not in environment


def test_a_killed_server_leaves_no_process_of_its_group():
    code = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('up', flush=True); sys.stdin.read()"
    place = Workplace.make(prepare_state)
    subject = Subject([sys.executable, "-c", code], place)

    async def kill():
        process = await subject.launch()
        assert await subject.read_line() == b"up\n"
        group = process.pid
        await subject.kill()
        for _ in range(100):
            members = [entry for entry in Path("/proc").glob("[0-9]*") if _group(entry) == group]
            if not members:
                return True
            await asyncio.sleep(0.02)
        return members

    assert asyncio.run(kill()) is True
    place.remove()


def _group(entry):
    """The process group of a /proc entry, of a living process."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[2])


# --- the kernel, and its twins


def test_the_kernel_conforms():
    verdicts = asyncio.run(run_suite(KERNEL, OBSERVABLE))
    assert {row.clause: row.detail for row in verdicts if row.status not in ("pass", "na")} == {}


def test_every_twin_fails_its_own_clause():
    verdicts = asyncio.run(own_verdicts(KERNEL, [clause for clause in OBSERVABLE if clause.id in TWINS]))
    assert {row.clause: row for row in verdicts if row.status not in ("fail", "warn")} == {}


@pytest.mark.long
@pytest.mark.parametrize("clause", sorted(TWINS))
def test_a_twin_breaks_its_own_clause_and_little_else(clause):
    quick = [other.id for other in OBSERVABLE if not {"process.kill", "process.fresh"} & set(other.needs)]
    share, strayed = asyncio.run(share_passed(KERNEL, clause, quick))
    assert share >= 0.9, [row.clause for row in strayed]


def test_the_proxy_without_a_lie_changes_nothing():
    chosen = [CLAUSES[name] for name in ("protocol.error.has-one-shape", "protocol.result.both-forms-are-equal")]
    verdicts = asyncio.run(run_suite(behind("", KERNEL), chosen))
    assert [row.status for row in verdicts] == ["pass", "pass"]
