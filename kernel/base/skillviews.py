"""What skills.py answers: frozen values whose names are the names on the wire. Revisions are shortened to what `load` takes, digests are whole."""

from dataclasses import dataclass
from typing import Any

from .drafts import Event
from .manifests import File

__all__ = ["Approved", "Entry", "FileBytes", "Found", "Listed", "Loaded", "Managed", "Published", "Saved", "Version"]


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    description: str
    uri: str
    trust: str
    score: float


@dataclass(frozen=True, slots=True)
class Version:
    revision: str
    recorded_at: str
    files: int
    current: bool
    approved: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """SKILL.md with the list of files, or one file (`path`), or the versions with what was done (`versions`, `events`), or `diff`."""

    name: str
    uri: str
    description: str
    trust: str
    revision: str
    body: str | None = None
    path: str | None = None
    text: str | None = None
    base64: str | None = None
    """Of a file that is not text."""
    files: tuple[Listed, ...] = ()
    versions: tuple[Version, ...] = ()
    events: tuple[Event, ...] = ()
    draft: str | None = None
    """The revision of the open draft."""
    before: str | None = None
    """The revision that `diff` starts from."""
    diff: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A skill as another host may load it: its front matter as it stands, and every file with its size and SHA-256."""

    name: str
    uri: str
    description: str
    frontmatter: dict[str, Any]
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A draft after an edit. `errors`: what keeps it from being promoted, in the words of the standard's validator."""

    name: str
    uri: str
    state: str
    revision: str
    files: tuple[Listed, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Managed:
    """A skill of an agent after an action. `state`: current, draft (nothing was promoted yet), none (rejected or deleted)."""

    name: str
    uri: str
    action: str
    state: str
    trust: str
    revision: str | None
    """The current one."""
    draft: str | None


@dataclass(frozen=True, slots=True)
class Approved:
    name: str
    uri: str
    revision: str | None
    trust: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    uri: str
    trust: str
    state: str


@dataclass(frozen=True, slots=True)
class FileBytes:
    uri: str
    file: File
    data: bytes
