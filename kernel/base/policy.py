"""The operator's rules: config.toml in the state folder, read once at start. Pure but for that one read.

    folders = ["/home/me/data", "/home/me/out:rw"]      seen read-only in sandboxes; `:rw` may be exported to
    hosts = ["example.org"]                             reachable from sandboxes; empty means none
    packages = false                                    may build Python environments from wheels
    approve_in_host = false                             run_approve may answer person items
    skills = ["/home/me/skills"]                        folders scanned for SKILL.md folders
    [memory]
    secrets = "mask"                                    or "refuse", "allow": what is done with keys and passwords in what is stored
    quarantine = ["web", "tool"]                        channels whose facts a person must release before they are found; none
    profiles = ["anthropic"]                            tools of other memory servers, served over this memory
    [limits]                                            any field of limits.py
    memory_mb_max = 2048

Guarantees
1. A file that does not parse, an unknown name or a value of the wrong type is a refusal to start; nothing is guessed.
2. Policy comes from this file and from the command line of the operator only, never from a workspace or an argument of a tool.
3. Grants of a connection narrow: `Grants.narrowed` gives the intersection, and an empty list means none.
"""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import HostError
from .facts import TRUST
from .limits import Limits

__all__ = ["MEMORY_PROFILES", "Folder", "Grants", "MemoryRules", "Policy", "load_policy"]

SECRETS = ("refuse", "mask", "allow")
MEMORY_PROFILES = ("anthropic", "server-memory")


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path
    writable: bool = False

    @staticmethod
    def parse(text: str) -> "Folder":
        """`DIR` or `DIR:rw`; relative to nothing, so it must be absolute."""
        path, colon, mode = text.rpartition(":")
        if not (colon and mode == "rw"):
            path = text
        folder = Path(path).expanduser()
        if not folder.is_absolute():
            raise HostError("config.invalid", f"The shared folder {text!r} is not an absolute path.")
        if not folder.is_dir():
            raise HostError("config.invalid", f"The shared folder {folder} does not exist.")
        return Folder(folder, writable=bool(colon and mode == "rw"))


@dataclass(frozen=True, slots=True)
class Grants:
    """What the operator allows: the most that any call can have."""

    folders: tuple[Folder, ...] = ()
    hosts: tuple[str, ...] = ()
    packages: bool = False
    approve_in_host: bool = False


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """What may be stored, what of it is found at once, and by which other tools."""

    secrets: str = "mask"
    quarantine: frozenset[str] = frozenset()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    grants: Grants = field(default_factory=Grants)
    limits: Limits = field(default_factory=Limits)
    skills: tuple[Path, ...] = ()
    memory: MemoryRules = field(default_factory=MemoryRules)


def load_policy(path: Path) -> Policy:
    """Read `path`; a missing file is the default policy."""
    try:
        if path.exists() and not path.is_file():  # reading a FIFO would wait for a writer
            raise HostError("config.invalid", f"{path} is no regular file. Mend or remove it.")
        text = path.read_text(encoding="utf8")
    except (FileNotFoundError, NotADirectoryError):  # a file in the folder's place is the store's to name
        return Policy()
    except (OSError, UnicodeDecodeError) as error:
        raise HostError("config.invalid", f"{path} cannot be read: {error}. Mend or remove it.") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HostError("config.invalid", f"{path} is not TOML: {error}. Mend or remove it.") from error
    known: dict[str, type] = {
        "folders": list, "hosts": list, "packages": bool, "approve_in_host": bool, "skills": list, "memory": dict,
        "limits": dict,
    }  # fmt: skip
    _check(path, table, known)
    for name in ("folders", "hosts", "skills"):
        if not all(isinstance(item, str) for item in table.get(name, [])):
            raise HostError("config.invalid", f"{path}: {name} must be a list of strings.")
    return Policy(
        grants=Grants(
            folders=tuple(Folder.parse(item) for item in table.get("folders", [])),
            hosts=tuple(table.get("hosts", [])),
            packages=table.get("packages", False),
            approve_in_host=table.get("approve_in_host", False),
        ),
        limits=_limits(path, table.get("limits", {})),
        skills=tuple(Path(item).expanduser() for item in table.get("skills", [])),
        memory=_memory(path, table.get("memory", {})),
    )


def _memory(path: Path, table: dict[str, Any]) -> MemoryRules:
    _check(path, table, {"secrets": str, "quarantine": list, "profiles": list})
    secrets, quarantine = table.get("secrets", "mask"), table.get("quarantine", [])
    profiles = table.get("profiles", [])
    if secrets not in SECRETS:
        raise HostError("config.invalid", f"{path}: memory.secrets is {secrets!r}; it is one of {', '.join(SECRETS)}.")
    for name in quarantine:
        if not isinstance(name, str) or name not in TRUST:
            raise HostError(
                "config.invalid", f"{path}: memory.quarantine names {name!r}; the channels are {', '.join(TRUST)}."
            )
    for name in profiles:
        if name not in MEMORY_PROFILES:
            raise HostError(
                "config.invalid", f"{path}: memory.profiles names {name!r}; there are {', '.join(MEMORY_PROFILES)}."
            )
    return MemoryRules(secrets, frozenset(quarantine), tuple(profiles))


def _limits(path: Path, table: dict[str, Any]) -> Limits:
    defaults = Limits()
    known = {f.name: type(getattr(defaults, f.name)) for f in dataclasses.fields(Limits)}
    _check(path, table, known)
    for name, value in table.items():
        if value <= 0:
            raise HostError("config.invalid", f"{path}: limits.{name} is {value}; a limit is above zero.")
    return dataclasses.replace(defaults, **table)


def _check(path: Path, table: dict[str, Any], known: dict[str, type]) -> None:
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."
            raise HostError("config.invalid", f"{path}: unknown name {name!r}.{hint}")
        wanted = known[name]
        fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            raise HostError("config.invalid", f"{path}: {name} must be {wanted.__name__}, not {type(value).__name__}.")
