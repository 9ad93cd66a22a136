"""The operator's rules: config.toml in the state folder, read once at start. Pure but for that one read.

    folders = ["/home/me/data", "/home/me/out:rw"]      seen read-only in sandboxes; `:rw` may be exported to
    hosts = ["example.org"]                             reachable from sandboxes; empty means none
    packages = false                                    may build Python environments from wheels
    approve_in_host = false                             run_approve may answer person items
    skills = ["/home/me/skills"]                        folders scanned for SKILL.md folders
    trusted_skills = ["skill://project/work/*"]         uris of skills that are trusted whatever their bytes are
    [memory]
    secrets = "mask"                                    or "refuse", "allow": what is done with keys and passwords in what is stored
    quarantine = ["web", "tool"]                        channels whose facts a person must release before they are found; none
    profiles = ["anthropic"]                            tools of other memory servers, served over this memory
    [limits]                                            any field of limits.py
    memory_mb_max = 2048

Guarantees
1. A file that does not parse, an unknown name or a value of the wrong type is a refusal to start; nothing is guessed.
2. Policy comes from this file and from the command line of the operator only, never from a workspace or an argument of a tool.
3. What config.toml names is the most that a connection can have (`Policy.granted`), and an empty list means none. What it does not name
   is the command line's to say, and nothing when that is silent too.
4. No folder is granted that contains the state folder.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Denied, HostError
from .facts import TRUST
from .limits import Limits

__all__ = ["MEMORY_PROFILES", "TOOLSETS", "Folder", "Grants", "MemoryRules", "Policy", "load_policy"]

SECRETS = ("refuse", "mask", "allow")
TOOLSETS = ("sandbox", "run", "memory", "skill", "author")
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

    def __str__(self) -> str:
        return f"{self.path}{':rw' if self.writable else ''}"

    def within(self, other: "Folder") -> bool:
        """Whether whoever has `other` has this one."""
        return self.path.resolve().is_relative_to(other.path.resolve()) and other.writable >= self.writable


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may have at most: shared folders, hosts, packages, and approving in its place."""

    folders: tuple[Folder, ...] = ()
    hosts: tuple[str, ...] = ()
    packages: bool = False
    approve_in_host: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the shared folders, each once; what a sandbox is made with."""
        return tuple(sorted({str(folder.path) for folder in self.folders}))

    def to_wire(self) -> dict[str, Any]:
        return {
            "folders": [str(folder) for folder in self.folders], "hosts": list(self.hosts), "packages": self.packages,
            "approve_in_host": self.approve_in_host,
        }  # fmt: skip

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> "Grants":
        """What `to_wire` gave. A folder that is gone meanwhile stays named: there is nothing to see at its place."""
        return Grants(
            folders=tuple(
                Folder(Path(text.removesuffix(":rw")), writable=text.endswith(":rw")) for text in wire["folders"]
            ),
            hosts=tuple(wire["hosts"]),
            packages=wire["packages"],
            approve_in_host=wire["approve_in_host"],
        )


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
    trusted_skills: tuple[str, ...] = ()
    memory: MemoryRules = field(default_factory=MemoryRules)
    named: frozenset[str] = frozenset()
    """The grants that config.toml speaks of."""

    def narrowed(self, grants: Grants) -> Grants:
        """Of `grants` what config.toml allows."""

        def may(name: str, *, has: bool) -> bool:
            return has or name not in self.named

        return Grants(
            folders=tuple(
                folder
                for folder in grants.folders
                if may("folders", has=any(folder.within(other) for other in self.grants.folders))
            ),
            hosts=tuple(host for host in grants.hosts if may("hosts", has=host in self.grants.hosts)),
            packages=grants.packages and may("packages", has=self.grants.packages),
            approve_in_host=grants.approve_in_host and may("approve_in_host", has=self.grants.approve_in_host),
        )

    def granted(self, asked: Grants, state: Path) -> Grants:
        """What a connection gets that asks for this on its command line; Denied when config.toml allows less.

        A grant that it does not ask for is the one of config.toml.
        """
        kept = self.narrowed(asked)
        beyond = [f"--folder {folder}" for folder in asked.folders if folder not in kept.folders]
        beyond += [f"--allow-host {host}" for host in asked.hosts if host not in kept.hosts]
        beyond += ["--allow-packages"] if asked.packages > kept.packages else []
        beyond += ["--approve-in-host"] if asked.approve_in_host > kept.approve_in_host else []
        if beyond:
            raise Denied(
                "grant.denied",
                f"{', '.join(beyond)} is more than config.toml in {state} allows. Change its lines, or ask for less.",
            )
        granted = Grants(
            folders=asked.folders or self.grants.folders,
            hosts=asked.hosts or self.grants.hosts,
            packages=asked.packages or self.grants.packages,
            approve_in_host=asked.approve_in_host or self.grants.approve_in_host,
        )
        for folder in granted.folders:
            if state.resolve().is_relative_to(folder.path.resolve()):
                raise HostError(
                    "config.invalid",
                    f"The shared folder {folder.path} contains the state folder {state}, which no sandbox may see."
                    " Share a folder that does not, or move the state with --state.",
                )
        return granted


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
        "folders": list, "hosts": list, "packages": bool, "approve_in_host": bool, "skills": list,
        "trusted_skills": list, "memory": dict, "limits": dict,
    }  # fmt: skip
    _check(path, table, known)
    for name in ("folders", "hosts", "skills", "trusted_skills"):
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
        trusted_skills=tuple(table.get("trusted_skills", [])),
        memory=_memory(path, table.get("memory", {})),
        named=frozenset(table) & {"folders", "hosts", "packages", "approve_in_host"},
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
