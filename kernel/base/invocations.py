"""What has to be run so that a script of a skill runs: which script, in which language, with which lines around it. Pure.

    /skill    $SKILL     the skill, read-only
    /output   $OUTPUT    the folder `output` of the workspace: what a script puts there comes back with the files of the call
    input     on stdin as JSON, and as `input.json` in the workspace

Guarantees
1. A path of a script stays beneath its skill, or is `path.outside`; an unknown one is answered with the nearest.
2. Names of files are data: no quoting of a path is left to a shell.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ArgumentError, CallerError, NotFound
from .workspace import checked_path

__all__ = [
    "PROGRAM",
    "Invocation",
    "beneath",
    "code_of",
    "existing",
    "program_for",
    "script_of",
    "source_of",
    "test_of",
]

PROGRAM = "program.py"
"""The durable program that a skill carries."""
TESTS = ("scripts/test.py", "scripts/test.sh", "tests/test.py", "tests/test.sh")
LANGUAGES = {".py": "python", ".sh": "bash", ".bash": "bash"}
RUN_PYTHON = """import os, sys
__file__ = sys.argv[0] = os.path.join(os.environ.get("SKILL", "/skill"), {path!r})
os.environ["OUTPUT"] = os.path.join(os.environ.get("WORKSPACE", "/workspace"), "output")
os.makedirs(os.environ["OUTPUT"], exist_ok=True)
sys.path.insert(0, os.path.dirname(__file__))
with open(__file__, "rb") as source:
    exec(compile(source.read(), __file__, "exec"))
"""
"""In the globals of `__main__`, as `python script.py` does, so that pickling and threads find the script's names."""
RUN_BASH = """export OUTPUT="${{WORKSPACE:-/workspace}}/output"
mkdir -p "$OUTPUT"
exec bash "${{SKILL:-/skill}}"/{path} "$@"
"""


@dataclass(frozen=True, slots=True)
class Invocation:
    """`code` in `language`, with `skill_folder` mounted at $SKILL."""

    name: str
    uri: str
    trust: str
    revision: str
    script: str
    language: str
    code: str
    argv: tuple[str, ...]
    skill_folder: Path
    digest: str
    """The whole revision."""


def beneath(path: str) -> str:
    try:
        return checked_path(path)
    except CallerError:
        raise ArgumentError(
            "path.outside",
            f"{path[:200]!r} is not a path beneath the skill. Use names like `scripts/run.py` from its list of files.",
        ) from None


def existing(skill: str, path: str, files: Iterable[str]) -> str:
    files = list(files)
    if path not in files:
        near = difflib.get_close_matches(path, files, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(files)[:20])}."
        raise NotFound("skill.file_unknown", f"{skill} has no file {path!r}. {hint}")
    return path


def script_of(skill: str, script: str | None, files: Sequence[str]) -> str:
    """The script that is asked for, or the only one there is; it can be run."""
    if script is None:
        scripts = [
            path for path in sorted(files) if path.startswith("scripts/") and path not in TESTS and _language(path)
        ]
        if len(scripts) != 1:
            known = f"Say which: {', '.join(scripts[:20])}." if scripts else "It has none."
            raise ArgumentError("argument.missing", f"script is not given, and {skill} has not exactly one. {known}")
        script = scripts[0]
    script = existing(skill, beneath(script), files)
    if _language(script) is None:
        raise ArgumentError("skill.language", f"{script} of {skill} is not a .py, .sh or .bash file; it cannot be run.")
    return script


def test_of(files: Iterable[str]) -> str | None:
    """The script that proves that the skill works, by its name."""
    return next((path for path in TESTS if path in set(files)), None)


def code_of(script: str) -> tuple[str, str]:
    """Language and code."""
    language = _language(script)
    assert language is not None
    return language, RUN_PYTHON.format(path=script) if language == "python" else RUN_BASH.format(path=_quoted(script))


def source_of(skill: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ArgumentError("skill.broken", f"{PROGRAM} of {skill} is not UTF-8 (byte {error.start}).") from None


def program_for(uri: str, script: str) -> str:
    """A program that runs a script with the input of its run."""
    return f"import kernel\n\nasync def main(input):\n    return await kernel.skill({uri!r}, {script!r}, **(input or {{}}))\n"


def _language(path: str) -> str | None:
    return LANGUAGES.get(Path(path).suffix)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
