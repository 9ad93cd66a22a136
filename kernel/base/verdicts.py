"""What a skill folder is worth, to whom: the standard's validator, the hosts that load it, the MCP extension that serves it.

Guarantees
1. `strict` is the verdict and the words of the reference validator on the folder (skillmd.py).
2. No folder raises, whatever is in it; its files are not read, but for SKILL.md.
"""

from pathlib import Path
from typing import Any

from . import manifests, skillmd
from .errors import LimitExceeded
from .limits import Limits
from .roots import SKILL_FILES

__all__ = ["validate"]


def validate(folder: Path, limits: Limits) -> dict[str, Any]:
    """`{path, strict: {valid, errors}, loads, publishable, warnings}` of one skill folder."""
    errors, reading = _read(folder)
    warnings: list[str] = []
    loads = reading is not None and reading.problem is None
    publishable = False
    if reading is not None:
        warnings += [reading.problem] if reading.problem else reading.warnings
        try:
            warnings += manifests.measured(folder, limits)
            publishable = loads and not skillmd.publishing_errors(reading)
        except (LimitExceeded, OSError) as error:
            warnings.append(str(error))
    return {
        "path": str(folder), "strict": {"valid": not errors, "errors": errors},
        "loads": loads, "publishable": publishable, "warnings": warnings,
    }  # fmt: skip


def _read(folder: Path) -> tuple[list[str], skillmd.Reading | None]:
    try:
        if not folder.exists():
            return [f"Path does not exist: {folder}"], None
        if not folder.is_dir():
            return [f"Not a directory: {folder}"], None
        path = next((folder / name for name in SKILL_FILES if (folder / name).exists()), None)
        if path is None:
            return ["Missing required file: SKILL.md"], None
        if not path.is_file():
            return [f"{path.name} cannot be read: it is no regular file"], None
        name = folder.resolve().name if folder.name in ("", "..") else folder.name
        text = path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        return [f"Invalid YAML in frontmatter: the file is not UTF-8 (byte {error.start})"], None
    except (OSError, RuntimeError) as error:
        return [f"{folder} cannot be read: {error}"], None
    return skillmd.strict_errors(text, name), skillmd.read(text, name)
