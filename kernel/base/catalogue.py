"""Which skills somebody sees, by which name each is meant, and what is not served and why. Pure: it is told what the folders hold.

Guarantees
1. Of two skills with one name the one that stands first is meant; the other stays reachable by its uri, and `shadows` tells of it. No
   two skills have one uri.
2. A folder that looks like a skill and is not served is in `problems` with the reason; it hides no other.
3. A uri names a skill, or a file of it: `skill://<origin>/<path>/<name>/<file>`. Where the folder on the disk has another name than the skill,
   the skill's stands behind it.
4. `key` says where a skill lies and not what it is called: versions, approvals and uses are kept under it. Folders of two places that are
   called alike have different keys.

Not here: the folders (roots.py, manifests.py), what is kept of skills (versions.py, approvals.py).
"""

import difflib
import hashlib
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote

from . import skillmd
from .errors import NotFound

__all__ = ["Catalogue", "Place", "Problem", "Skill", "gathered", "located", "meant", "scope_of"]


@dataclass(frozen=True, slots=True)
class Problem:
    folder: str
    problem: str


class Place(NamedTuple):
    """Where skills come from."""

    origin: str
    """The first part of their uris."""
    trust: str
    scope: str = ""
    """What tells two places of one origin apart."""

    @property
    def key(self) -> str:
        return self.origin + (f"#{self.scope}" if self.scope else "")


class Skill(NamedTuple):
    uri: str
    key: str
    place: Place
    reading: skillmd.Reading
    folder: Path | None
    """None: its files are in the store."""
    revision: str | None = None
    """Of one in the store."""

    @property
    def name(self) -> str:
        return self.reading.name

    @property
    def base(self) -> str:
        return self.uri.removesuffix("SKILL.md")


@dataclass(frozen=True, slots=True)
class Catalogue:
    skills: tuple[Skill, ...]
    """By precedence."""
    problems: tuple[Problem, ...]
    by_base: Mapping[str, Skill]
    by_key: Mapping[str, Skill]
    by_name: Mapping[str, Sequence[Skill]]
    served: tuple[Skill, ...]
    """By uri: those that are meant by their name and that the standard allows to be served to other hosts."""
    unserved: tuple[Problem, ...]

    @property
    def shadows(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(str(other.folder or other.uri), f"The name {name!r} means {named[0].uri}; this one is {other.uri}.")
            for name, named in self.by_name.items()
            for other in named[1:]
        )


def gathered(skills: Iterable[Skill], problems: Iterable[Problem]) -> Catalogue:
    """Of skills in the order of their precedence."""
    by_base: dict[str, Skill] = {}
    by_name: dict[str, list[Skill]] = {}
    for skill in skills:
        kept, n = skill, 1
        while kept.base in by_base:
            n += 1
            origin = quote(skill.place.origin)
            kept = skill._replace(uri=skill.uri.replace(f"skill://{origin}/", f"skill://{origin}~{n}/", 1))
        by_base[kept.base] = kept
        by_name.setdefault(kept.name, []).append(kept)
    served, unserved = [], []
    for first, *_ in by_name.values():
        errors = skillmd.publishing_errors(first.reading)
        if errors:
            unserved.append(Problem(str(first.folder or first.uri), "; ".join(errors)))
        else:
            served.append(first)
    served.sort(key=lambda skill: skill.uri)
    by_key = {skill.key: skill for skill in by_base.values()}
    return Catalogue(tuple(by_base.values()), tuple(problems), by_base, by_key, by_name, tuple(served), tuple(unserved))


def scope_of(path: Path) -> str:
    """What tells this folder from others of its name."""
    return hashlib.blake2b(str(path).encode(errors="surrogateescape"), digest_size=6).hexdigest()


def located(place: Place, where: PurePosixPath, reading: skillmd.Reading, folder: Path | None, revision: str | None = None) -> Skill:  # fmt: skip
    """The skill that lies at `where` of a place."""
    named = where if where.name == reading.name or skillmd.publishing_errors(reading) else where / reading.name
    key = f"skill://{quote(place.origin)}/{quote(str(where))}/SKILL.md"
    return Skill(
        f"skill://{quote(place.origin)}/{quote(str(named))}/SKILL.md",
        f"{key}#{place.scope}" if place.scope else key,
        place, reading, folder, revision,
    )  # fmt: skip


def meant(catalogue: Catalogue, asked: str) -> tuple[Skill, str | None, tuple[str, ...]]:
    """The skill, the file or folder of it that a uri names, and a warning where names collide. NotFound with the nearest name."""
    if asked.startswith("skill://"):
        base = asked.rstrip("/") + "/"
        while base.count("/") > 3:
            skill = catalogue.by_base.get(base)
            if skill is not None:
                inner = unquote(asked[len(base) :].rstrip("/"))
                return skill, inner if inner not in ("", "SKILL.md") else None, _collisions(catalogue, skill)
            base = base[: base.rindex("/", 0, -1) + 1]
        raise NotFound("skill.unknown", f"There is no skill {asked[:200]!r}. skill_search gives the uris.")
    name = unicodedata.normalize("NFKC", asked.strip())
    named = catalogue.by_name.get(name)
    if named:
        return named[0], None, _collisions(catalogue, named[0])
    for folder, problem in ((Path(p.folder), p.problem) for p in catalogue.problems):
        if folder.name == asked:
            raise NotFound(
                "skill.broken",
                f"{folder} is no skill that can be loaded. {problem.rstrip('.')}. Mend it; `agent-kernel skill validate {shlex.quote(str(folder))}` checks it.",
            )
    alike = (
        [name for name in catalogue.by_name if name[:1] == asked[:1]]
        if len(catalogue.by_name) > 500
        else catalogue.by_name
    )
    near = difflib.get_close_matches(asked[:200], alike, 1)
    hint = f"Did you mean {near[0]!r}?" if near else "Look for one with skill_search."
    raise NotFound("skill.unknown", f"There is no skill {asked[:200]!r}. {hint}")


def _collisions(catalogue: Catalogue, skill: Skill) -> tuple[str, ...]:
    first, *others = catalogue.by_name[skill.name]
    if first is not skill:
        return (f"The name {skill.name!r} alone means another skill: {first.uri}",)
    return tuple(f"Another skill has this name: {other.uri}" for other in others)
