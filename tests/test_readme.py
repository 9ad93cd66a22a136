"""README.md: its program runs as it stands, and what it names exists."""

import re
import subprocess
import sys
from pathlib import Path

from agent_kernel_conformance.registry import CLAUSES

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf8")


def test_the_program_to_embed_runs_and_finds_its_run_when_it_runs_again(tmp_path):
    program = README.split("```python\n")[1].split("```")[0]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split("\n") == ["42", "", "285", "The sum of squares is 285", ""]


def test_the_commands_and_clauses_it_names_exist():
    for verb in set(re.findall(r"agent-kernel ([a-z]+)", README)):
        done = subprocess.run(
            [sys.executable, "-m", "agent_kernel_mcp", verb, "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (verb, done.stderr)
    [explained] = re.findall(r"conformance explain (\S+)", README)
    assert explained in CLAUSES


def test_run_says_in_one_line_that_the_python_it_was_given_is_not_there():
    run = Path(__file__).parent.parent / "run"
    done = subprocess.run(
        ["sh", run, "demo"], env={"PATH": "/usr/bin:/bin", "PYTHON": "/no/python"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "There is no /no/python; PYTHON names it.\n")
