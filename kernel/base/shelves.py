"""The folders that skills lie in, for each connection: looked at together, and remembered until something has changed.

Guarantees
1. Of a shared folder only a look with that folder among `shared` tells; two folders of one name are two places.
2. The same catalogue comes again when nothing has changed; what was read of a SKILL.md is kept with its text.
3. A look that takes longer than `LOOK_FREE_S` is not repeated within `LOOK_REST` times what it took, at most `REST_MAX_S`, and tells what the
   last one saw.

Blocking, for one thread at a time. Nothing is written.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import roots, skillmd
from .catalogue import Catalogue, Place, Problem, Skill, gathered, located, scope_of
from .ports import Clock
from .roots import Root

__all__ = ["Shelf", "Shelves"]

LOOK_FREE_S, LOOK_REST, REST_MAX_S = 0.005, 20, 1.0


class Shelf(NamedTuple):
    root: Root
    place: Place


class _Seen(NamedTuple):
    views: tuple[roots.View, ...]
    made: tuple[Skill, ...]
    catalogue: Catalogue


class Shelves:
    def __init__(self, fixed: Sequence[Shelf], clock: Clock) -> None:
        """`fixed`: everybody's, by precedence."""
        self._fixed = fixed
        self._clock = clock
        self._shared: dict[Path, list[Shelf]] = {}
        self._read: dict[tuple[Place, Path], tuple[roots.Found, Skill]] = {}
        self._seen: dict[tuple[str, tuple[Path, ...]], _Seen] = {}

    def of(self, shared: Iterable[Path]) -> list[Shelf]:
        """By precedence: everybody's, then those in the shared folders."""
        return [*self._fixed, *(shelf for folder in shared for shelf in self._in(folder))]

    def look(self, whose: str, shared: tuple[Path, ...], made: tuple[Skill, ...]) -> Catalogue:
        """What lies there, and `made`, which stands last."""
        shelves = self.of(shared)
        views = tuple(self._view(shelf.root) for shelf in shelves)
        known = self._seen.get((whose, shared))
        if known is None or known.made is not made or any(a is not b for a, b in zip(known.views, views, strict=True)):
            known = self._seen[whose, shared] = _Seen(views, made, self._gathered(shelves, views, made))
        return known.catalogue

    def _in(self, folder: Path) -> list[Shelf]:
        if folder not in self._shared:
            self._shared[folder] = [
                Shelf(Root(path), Place(f"project/{folder.name}", "community", scope_of(path)))
                for path in (folder / ".agents" / "skills", folder / ".claude" / "skills")
            ]
        return self._shared[folder]

    def _view(self, root: Root) -> roots.View:
        begun = self._clock.monotonic()
        if root.cost_s <= LOOK_FREE_S or begun - root.looked_at >= min(LOOK_REST * root.cost_s, REST_MAX_S):
            roots.look(root, int(self._clock.now() * 1e9))
            root.looked_at = self._clock.monotonic()
            root.cost_s = root.looked_at - begun
        return root.view

    def _gathered(self, shelves: Sequence[Shelf], views: Sequence[roots.View], made: Sequence[Skill]) -> Catalogue:
        skills: list[Skill] = []
        problems: list[Problem] = []
        for shelf, view in zip(shelves, views, strict=True):
            problems += [Problem(str(shelf.root.path), text) for text in view.left_out]
            for found in view.skills:
                skill = self._skill(shelf, found)
                if isinstance(skill, Problem):
                    problems.append(skill)
                else:
                    skills.append(skill)
        for skill in made:
            if skill.reading.problem is None:
                skills.append(skill)
            else:
                problems.append(Problem(skill.uri, skill.reading.problem))
        return gathered(skills, problems)

    def _skill(self, shelf: Shelf, found: roots.Found) -> Skill | Problem:
        if found.text is None:
            return Problem(str(found.folder), found.problem or "")
        known = self._read.get((shelf.place, found.folder))
        if known is None or known[0] is not found:
            reading = skillmd.read(found.text, found.folder.name)
            top = shelf.root.path
            where = PurePosixPath(found.folder.relative_to(top) if found.folder != top else found.folder.name)
            known = self._read[shelf.place, found.folder] = found, located(shelf.place, where, reading, found.folder)
        problem = known[1].reading.problem
        return known[1] if problem is None else Problem(str(found.folder), problem)
