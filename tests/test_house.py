"""The rules of docs/ARCHITECTURE.md, executed; and that each of them can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import house

ROOT = Path(__file__).parent.parent


@pytest.fixture
def copy(tmp_path):
    for folder in house.FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_point_one_way():
    assert house.forbidden_imports(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("kernel/memory.py", "from . import journal", "agent_kernel.memory imports agent_kernel.journal"),
        ("kernel/base/store.py", "from ..scheduler import Scheduler", "imports agent_kernel.scheduler"),
        ("kernel/cell/frames.py", "from ..base import errors", "imports agent_kernel.base"),
        ("kernel/orchestration.py", "import mcp.types", "imports mcp.types"),
        ("kernel/sandbox.py", "from pydantic import BaseModel", "imports pydantic"),
        ("conformance/report.py", "from agent_kernel import Kernel", "imports agent_kernel"),
        ("kernel/programs.py", "from .orchestration import Runs", "imports agent_kernel.orchestration"),
    ],
)
def test_a_planted_import_is_found(copy, file, line, found):
    path = copy / file
    path.write_text(path.read_text(encoding="utf8") + f"\n{line}\n", encoding="utf8")
    assert any(found in place for place in house.forbidden_imports(copy))


def test_every_file_opens_with_its_theory(copy):
    assert house.files_without_theory(ROOT) == []
    (copy / "kernel/base/limits.py").write_text("x = 1\n", encoding="utf8")
    assert house.files_without_theory(copy) == ["kernel/base/limits.py"]


def test_files_and_functions_stay_readable(copy):
    assert house.too_long(ROOT) == []
    (copy / "kernel/base/limits.py").write_text("x = 1\n" * 701, encoding="utf8")
    assert house.too_long(copy) == ["kernel/base/limits.py: 701 lines"]


def python(code: str, **kwargs) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, **kwargs
    ).stdout.strip()


def test_the_kernel_runs_without_mcp_and_pydantic():
    """What engineers embed costs none of the protocol's imports."""
    code = "import sys, agent_kernel; print(sorted({'mcp', 'pydantic', 'starlette', 'rich'} & set(sys.modules)))"
    assert python(code) == "[]"


def test_importing_the_kernel_costs_a_fifth_of_the_protocol_server_in_modules():
    """Wall time is noise here; the number of modules and their bytes of code stand for it. `bench import` shows the time."""
    count = "import sys; before = len(sys.modules); import {0}; print(len(sys.modules) - before)"
    assert int(python(count.format("agent_kernel"))) * 2 < int(python(count.format("mcp.server")))


def test_the_folder_names_are_not_import_names():
    """From the repository's root `import kernel` would be a second copy of everything."""
    code = (
        "import sys, agent_kernel, agent_kernel_conformance; print({'kernel', 'conformance'} & set(sys.modules) or '')"
    )
    assert python(code, cwd=ROOT) == ""
