"""What the README says is so: its program runs, its tools and commands exist, its links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from agent_kernel_mcp.tools import EXPORT, TOOLS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")


def test_the_embedded_program_runs_and_its_second_run_reads_the_journal(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.stdout == "42\n\n285\nThe sum of squares is 285\n", done.stderr


def test_the_tools_named_are_the_tools_there_are():
    named = set(re.findall(r"`((?:sandbox|run|memory|skill)_[a-z]+)`", README))
    assert named == {tool.name for tool in (*TOOLS, EXPORT)}


def test_the_clause_named_is_a_clause():
    (clause,) = re.findall(r"conformance explain (\S+)", README)
    clauses = {
        name
        for path in (ROOT / "conformance/clauses").glob("*.toml")
        for name in tomllib.loads(path.read_text(encoding="utf8"))["clause"]
    }
    assert clause in clauses


def test_links_between_documents_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_files_that_the_architecture_draws_are_there():
    drawing = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf8").split("```")[1]
    words = set(re.findall(r"[a-z_]+", drawing))
    for path in (ROOT / "kernel").rglob("*.py"):
        if path.stem != "__init__" and "builtin_skills" not in path.parts:
            assert path.stem in words, f"{path.relative_to(ROOT)} is not in the plan"
