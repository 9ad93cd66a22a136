"""Skills: folders with a SKILL.md that tell a model how to do something, and scripts it may run. Nothing is executed here.

    <state>/skills                                   the user's          trust user
    folders of `skills` in config.toml               the operator's      trust trusted
    kernel/builtin_skills                            ours                trust bundled
    .agents/skills, .claude/skills of shared folders the project's       trust community
    the store                                        written by agents   trust agent

Of two skills with one name the one that stands higher in this list is meant, so nothing that an agent writes takes the name of another
skill; each stays reachable by its uri `skill://<origin>/<path>/SKILL.md`. A skill is read when it is asked for; what was read is kept under
the digest of its bytes, so that what a run once used can be read again when the folder has changed.

Guarantees
1. skills.broken: a folder whose SKILL.md cannot be read hides no other skill and is not served; `problems` says why.
2. skills.versions: a version that was loaded, run or written is kept, by the digest of its files; nothing is overwritten.
3. skills.path: a path of a file or script stays beneath its skill, or is `path.outside`.
4. skills.script: what `script` hands out is a copy of exactly the version it names: checked byte by byte, read-only files.
5. skills.trust: it comes from where the skill lies, from a person's approval of its very bytes, or from a rule of the operator; never from
   what it says about itself (approvals.py).
6. skills.shared: the skills of a shared folder are seen through the connections that share it (`grants`), and by nobody else.
7. skills.drafts: what an agent writes is a draft; it is found by nobody who does not ask for it, until it is promoted (drafts.py).
8. Every question begins with a look at the folders; where there are thousands of skills it may tell what was there a second ago (shelves.py).

If the process dies: a version is there with all its bytes or not at all; a half-made copy has another name and is never handed out.
"""

import asyncio
import base64
import bisect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from .base import (
    approvals,
    drafts,
    invocations,
    lockfile,
    manifests,
    ranking,
    roots,
    skillmd,
    skillsearch,
    verdicts,
    versions,
)
from .base.catalogue import Catalogue, Place, Problem, Skill, located, meant
from .base.drafts import Author, Made
from .base.errors import ArgumentError, Conflict, LimitExceeded, NotFound
from .base.invocations import Invocation, beneath, existing
from .base.limits import Limits
from .base.manifests import Manifest
from .base.policy import Grants, Policy
from .base.ports import LOCAL, Ports, rfc3339
from .base.roots import Root
from .base.shelves import Shelf, Shelves
from .base.skillsearch import Row
from .base.skillviews import Approved, Entry, FileBytes, Found, Listed, Loaded, Managed, Published, Saved, Version
from .base.store import Migrations, Store, Transaction

__all__ = ["MIGRATIONS", "Approved", "Entry", "FileBytes", "Found", "Invocation", "Listed", "Loaded", "Managed", "Problem", "Published", "Saved", "Skills", "Version", "validate"]  # fmt: skip

validate = verdicts.validate
T = TypeVar("T")

MIGRATIONS: Migrations = {
    1: f"""
    CREATE TABLE skill(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, uri TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL,
        trust TEXT NOT NULL, UNIQUE(principal, uri)) STRICT;
    CREATE VIRTUAL TABLE skill_fts USING fts5(
        name, description, content='skill', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    {versions.SCHEMA}
    """,
    6: skillsearch.SCHEMA + approvals.SCHEMA + drafts.SCHEMA,
}

BUILT_IN = Path(__file__).parent / "builtin_skills"
AGENT = Place("agent", "agent")
DRAFT = Place("draft", "agent")
PAGE_FILES_MAX = 2000
"""Of all skills of one page of `published`; a page holds at least one skill."""
BRIEF_CHARS = 240
"""Of a description in search results: five of them cost a model about 300 tokens."""
VERSIONS_SHOWN = 100


class Skills:
    def __init__(self, *, store: Store, ports: Ports, limits: Limits, policy: Policy) -> None:
        self._store = store
        self._ports = ports
        self._limits = limits
        self._policy = policy
        self._cache = store.folder / "skill-cache"
        fixed = [
            Shelf(Root(store.folder / "skills"), Place("user", "user")),
            *(Shelf(Root(path), Place(_origin(path, policy.skills), "trusted")) for path in policy.skills),
            Shelf(Root(BUILT_IN), Place("kernel", "bundled")),
        ]
        self._shelves = Shelves(fixed, ports.clock)
        self._looking = asyncio.Lock()
        self._copying = asyncio.Lock()
        self._made: dict[str, tuple[Skill, ...]] = {}
        """What agents wrote, by principal; forgotten at every write."""
        self._indexed: dict[tuple[str, tuple[Path, ...]], Catalogue] = {}
        self._manifests = manifests.Manifests(limits)

    # --- read

    async def search(
        self, query: str, limit: int = 5, *, principal: str = LOCAL, grants: Grants | None = None
    ) -> list[Found]:
        """Skills whose name or description has words of the query, best first. `grants` are those of the connection that asks;
        without them the kernel's.
        """
        if not 1 <= limit <= 100:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to 100.")
        catalogue = await self._look(principal, grants)
        places = await self._index(principal, grants, catalogue)
        now = self._ports.clock.now()
        hits = await self._store.read(lambda db: skillsearch.search(db, principal, places, query, limit=limit, now=now))
        found = []
        for hit in hits:
            skill = catalogue.by_key.get(hit.key)
            if skill is not None:
                trust = await self._trust(skill, principal)
                brief = ranking.excerpt(skill.reading.description, BRIEF_CHARS, skill.uri)
                found.append(Found(skill.name, brief, skill.uri, trust, hit.score))
        return found

    async def load(
        self, skill: str, path: str | None = None, revision: str | None = None, view: str = "content", *, principal: str = LOCAL,
        grants: Grants | None = None,
    ) -> Loaded:  # fmt: skip
        """By name, by uri, or by the uri of one of its files. `revision`: a version by the beginning of its digest; `view="history"`: the
        versions and what was done; `view="diff"`: what changed since `revision`, or since the version before.
        """
        found, inner, warnings = await self._find(skill, principal, grants)
        path = path or inner
        if view == "history":
            return await self._history(found, principal)
        if view == "diff":
            return await self._diff(found, path, revision, principal)
        if view != "content":
            raise ArgumentError("argument.invalid", f"view is {view!r}; it is 'content', 'history' or 'diff'.")
        manifest = await self._manifest(found, revision, principal)
        trust = await self._trust(found, principal, manifest.revision)
        about = Loaded(found.name, found.uri, found.reading.description, trust, manifest.revision[:12])
        if path is not None:
            path = existing(found.name, beneath(path), (file.path for file in manifest.files))
            data = await self._bytes(manifest, path, principal)
            text = versions.text_of(data)
            return replace(
                about, path=path, text=text, base64=None if text is not None else base64.b64encode(data).decode()
            )
        reading = found.reading if revision is None else await self._reading(manifest, found.name, principal)
        if revision is None:
            await self._count(found, principal)
        told = (*(reading.warnings if reading.problem is None else (reading.problem,)), *manifest.warnings, *warnings)
        files = tuple(Listed(file.path, file.size_bytes) for file in manifest.files)
        return replace(about, body=reading.body, files=files, warnings=(*told, *await self._doubts(found, trust, manifest.revision, principal)))  # fmt: skip

    async def script(
        self, skill: str, script: str | None = None, revision: str | None = None, *, principal: str = LOCAL,
        grants: Grants | None = None,
    ) -> Invocation:  # fmt: skip
        """A script of a skill, ready to be run; without a name the only one it has."""
        found, inner, _ = await self._find(skill, principal, grants)
        manifest = await self._manifest(found, revision, principal)
        script = invocations.script_of(found.name, script or inner, [file.path for file in manifest.files])
        await self._count(found, principal)
        return await self._invocation(found, manifest, script, principal)

    async def program(self, skill: str, *, principal: str = LOCAL, grants: Grants | None = None) -> str:
        """The source of the durable program that a run of the skill is: the skill's own (`program.py`), else one that runs its script.
        `NAME/scripts/x.py` names the script.
        """
        name, _, script = (skill, "", "") if skill.startswith("skill://") else skill.partition("/")
        found, inner, _ = await self._find(name, principal, grants)
        manifest = await self._manifest(found, None, principal)
        files = [file.path for file in manifest.files]
        wanted = script or inner
        await self._count(found, principal)
        if wanted in (None, invocations.PROGRAM) and invocations.PROGRAM in files:
            return invocations.source_of(found.name, await self._bytes(manifest, invocations.PROGRAM, principal))
        return invocations.program_for(found.uri, invocations.script_of(found.name, wanted, files))

    async def problems(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[Problem]:
        """Folders that look like skills and are not served, and what was not searched."""
        return list((await self._look(principal, grants)).problems)

    async def shadows(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[Problem]:
        """Skills whose name alone means another one."""
        return list((await self._look(principal, grants)).shadows)

    async def names(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[str]:
        """The names that `load` understands, for completion."""
        return sorted((await self._look(principal, grants)).by_name)

    async def uris(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[str]:
        """Of every skill, for completion."""
        return sorted(skill.uri for skill in (await self._look(principal, grants)).skills)

    # --- as files with digests

    async def served(self, *, principal: str = LOCAL, grants: Grants | None = None) -> Sequence[Skill]:
        """What `published` goes through; equal to what it was as long as no skill came, went, or has another SKILL.md."""
        return (await self._look(principal, grants)).served

    async def published(
        self, after: str = "", limit: int = 100, *, principal: str = LOCAL, grants: Grants | None = None
    ) -> tuple[list[Published], bool]:
        """Skills that other hosts may load, by uri, at most `limit` after the uri `after`; and whether there are more."""
        served = (await self._look(principal, grants)).served
        start = bisect.bisect_right(served, after, key=lambda skill: skill.uri)
        entries: list[Published] = []
        files = 0
        for entry in await self._entries(served[start : start + limit + 1], principal):
            if isinstance(entry, Problem):
                continue
            files += len(entry.files)
            if len(entries) == limit or (entries and files > PAGE_FILES_MAX):
                return entries, True
            entries.append(entry)
        return entries, start + limit + 1 < len(served)

    async def publication(self, uri: str, *, principal: str = LOCAL, grants: Grants | None = None) -> Published:
        """One of them by the uri of its SKILL.md, also one that another of its name hides. NotFound."""
        skill = (await self._look(principal, grants)).by_base.get(uri.removesuffix("SKILL.md"))
        if skill is not None and uri == skill.uri and not skillmd.publishing_errors(skill.reading):
            entry = await self._entry(skill, principal)
            if isinstance(entry, Published):
                return entry
        raise NotFound("skill.unknown", f"No skill is served at {uri[:200]}. skills/list gives the uris.")

    async def unpublished(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[Problem]:
        """Skills that load here and that other hosts would refuse, and why."""
        catalogue = await self._look(principal, grants)
        entries = await self._entries(catalogue.served, principal)
        return [*catalogue.unserved, *(entry for entry in entries if isinstance(entry, Problem))]

    async def _entry(self, skill: Skill, principal: str) -> Published | Problem:
        return (await self._entries([skill], principal))[0]

    async def _entries(self, skills: Sequence[Skill], principal: str) -> list[Published | Problem]:
        """In one go: hosts list a hundred at a time."""
        held = await asyncio.to_thread(self._lying, [skill for skill in skills if skill.folder is not None])
        for skill in skills:
            if skill.folder is None:
                held[skill.key] = await self._present(skill, principal)
        return [_entry(skill, held[skill.key]) for skill in skills]

    def _lying(self, skills: Sequence[Skill]) -> dict[str, Manifest | str]:
        """What lies in their folders, or why that is not served."""
        now_ns = int(self._ports.clock.now() * 1e9)
        held: dict[str, Manifest | str] = {}
        for skill in skills:
            assert skill.folder is not None
            try:
                held[skill.key] = _readable(self._manifests.of, skill.folder, now_ns)
            except (LimitExceeded, NotFound) as error:
                held[skill.key] = error.message
        return held

    async def file(self, uri: str, *, principal: str = LOCAL, grants: Grants | None = None) -> FileBytes:
        """The bytes of one file by its uri, as the manifest has them; SKILL.md with its front matter. Drafts too."""
        skill, path, _ = await self._find(uri, principal, grants)
        for _ in range(3):  # the folder may change between the manifest and the file
            manifest = await self._present(skill, principal)
            names = [file.path for file in manifest.files]
            name = path or next(n for n in roots.SKILL_FILES if n in names)
            entry = manifest.files[names.index(existing(skill.name, beneath(name), names))]
            if skill.folder is None:
                data: bytes | None = await self._bytes(manifest, entry.path, principal)
            else:
                data = await asyncio.to_thread(_unless_gone, manifests.file_of, skill.folder, manifest, entry.path)
            if data is not None:
                return FileBytes(skill.base + quote(entry.path), entry, data)
        raise NotFound("skill.unreadable", f"{uri[:200]} changes while it is read. Read it again.")

    # --- the catalogue

    async def _find(
        self, asked: str, principal: str, grants: Grants | None
    ) -> tuple[Skill, str | None, tuple[str, ...]]:
        """As `meant`, and drafts: by their own uri, and by a name that nothing else has."""
        draft = asked.startswith("skill://draft/")
        catalogue = await self._look(principal, grants)
        if not draft and (asked.startswith("skill://") or asked.strip() in catalogue.by_name):
            return meant(catalogue, asked)
        name, _, inner = asked.removeprefix("skill://draft/").partition("/")
        made = await self._store.read(lambda db: drafts.made(db, principal, name.strip()))
        if made is None or (draft and made.draft is None):
            return meant(catalogue, asked)
        warning = f"{name} is a draft: it is found by nobody until it is promoted."
        if made.draft is None:
            warning = f"{name} was deleted. skill_manage(action='rollback') brings it back."
        return await self._of_store(made, made.draft, DRAFT, principal), inner if inner not in ("", "SKILL.md") else None, (warning,)  # fmt: skip

    async def _look(self, principal: str, grants: Grants | None) -> Catalogue:
        async with self._looking:
            made = await self._made_of(principal)
            return await asyncio.to_thread(self._shelves.look, principal, self._folders(grants), made)

    def _folders(self, grants: Grants | None) -> tuple[Path, ...]:
        """What is shared with whoever asks, as far as the operator allows."""
        allowed = self._policy.grants if grants is None else self._policy.narrowed(grants)
        return tuple(folder.path for folder in allowed.folders)

    async def _made_of(self, principal: str) -> tuple[Skill, ...]:
        if principal not in self._made:
            rows = await self._store.read(lambda db: drafts.all_made(db, principal))
            current = [await self._of_store(made, made.current, AGENT, principal) for made in rows if made.current]
            self._made[principal] = tuple(current)
        return self._made[principal]

    async def _of_store(self, made: Made, revision: str | None, place: Place, principal: str) -> Skill:
        if revision is None:
            reading = skillmd.Reading(made.name, "", {}, "", None, ())
        else:
            manifest = await self._store.read(
                lambda db: versions.manifest_of(db, principal, made.key, revision, made.name)
            )
            reading = await self._reading(manifest, made.name, principal)
        found = located(place, PurePosixPath(made.name), reading, None, revision)
        return found._replace(uri=f"skill://{place.origin}/{quote(made.name)}/SKILL.md", key=made.key)

    async def _index(self, principal: str, grants: Grants | None, catalogue: Catalogue) -> list[str]:
        """Bring the index up to date; the places of this connection."""
        shared = self._folders(grants)
        keys = [*(shelf.place.key for shelf in self._shelves.of(shared)), AGENT.key]
        if self._indexed.get((principal, shared)) is not catalogue:
            rows = [Row(s.place.key, s.key, s.uri, s.name, s.reading.description) for s in catalogue.skills]
            await self._store.write(lambda tx: skillsearch.reindex(tx, principal, keys, rows))
            self._indexed[principal, shared] = catalogue
        return keys

    # --- written by agents

    async def save(
        self, name: str, path: str = "SKILL.md", text: str | None = None, old: str | None = None, *, reason: str | None = None,
        client: str | None = None, run_id: str | None = None, principal: str = LOCAL, grants: Grants | None = None,
    ) -> Saved:  # fmt: skip
        """Write one file of the draft: the whole text, or `text` in the place of `old`, which is there once; without a text the file is
        removed. A draft begins as the skill of that name, where there is one.
        """
        path = beneath(path)
        if text is None and (old is not None or path == "SKILL.md"):
            raise ArgumentError(
                "argument.missing", f"text is not given. Without it a file is removed, and {name} needs its {path}."
            )
        data = None if text is None else drafts.storable("text", text)
        base = await self._base(name, principal, grants)
        author, now = Author(principal, client, run_id), self._ports.clock.now()

        def unit(tx: Transaction) -> Manifest:
            put = {} if data is None else {path: data}
            if old is not None:
                put = {path: drafts.replaced(tx, principal, name, base, path=path, old=old, new=text or "")}
            remove = () if put else (path,)
            return drafts.edit(
                tx, author, name, base=base, put=put, remove=remove, reason=reason, now=now, limits=self._limits
            )

        return await self._saved(name, await self._store.write(unit), principal)

    async def save_tree(
        self, name: str, files: Mapping[str, bytes], *, reason: str | None = None, action: str = "save", client: str | None = None,
        run_id: str | None = None, principal: str = LOCAL,
    ) -> Saved:  # fmt: skip
        """Make these the files of the draft, and no others."""
        skillmd.check_name(name)
        put = {beneath(path): data for path, data in files.items()}
        author, now = Author(principal, client, run_id), self._ports.clock.now()

        def unit(tx: Transaction) -> Manifest:
            remove = [path for path in drafts.begin_with(tx, principal, name, None) if path not in put]
            return drafts.edit(
                tx, author, name, base=None, put=put, remove=remove, reason=reason, action=action, now=now, limits=self._limits
            )  # fmt: skip

        return await self._saved(name, await self._store.write(unit), principal)

    async def _base(self, name: str, principal: str, grants: Grants | None) -> Manifest | None:
        """The skill that a first edit of `name` starts from."""
        skillmd.check_name(name)
        named = (await self._look(principal, grants)).by_name.get(name, ())
        return await self._manifest(named[0], None, principal) if named and named[0].folder is not None else None

    async def _saved(self, name: str, manifest: Manifest, principal: str) -> Saved:
        reading = await self._reading(manifest, name, principal)
        files = tuple(Listed(file.path, file.size_bytes) for file in manifest.files)
        path = next((f.path for f in manifest.files if f.path in roots.SKILL_FILES), None)
        text = None if path is None else versions.text_of(await self._bytes(manifest, path, principal))
        errors = ["Missing required file: SKILL.md"] if text is None else skillmd.strict_errors(text, name)
        return Saved(name, f"skill://draft/{quote(name)}/SKILL.md", "draft", manifest.revision[:12], files, tuple(errors), reading.warnings)  # fmt: skip

    async def test(self, name: str, *, principal: str = LOCAL) -> Invocation:
        """The test script of the open draft, ready to be run; `tested` keeps how it ended."""
        made = await self._store.read(lambda db: drafts.the_draft(db, principal, name))
        draft = await self._of_store(made, made.draft, DRAFT, principal)
        manifest = await self._present(draft, principal)
        script = invocations.test_of(file.path for file in manifest.files)
        if script is None:
            raise NotFound("skill.no_test", f"The draft of {name} has no test. Save one as {invocations.TESTS[0]}: exit status 0 is a pass.")  # fmt: skip
        return await self._invocation(draft, manifest, script, principal)

    async def tested(
        self, invocation: Invocation, *, passed: bool, client: str | None = None, principal: str = LOCAL
    ) -> None:
        author, now, key = Author(principal, client), self._ports.clock.now(), drafts.key_of(invocation.name)
        outcome = "passed" if passed else "failed"
        await self._store.write(
            lambda tx: drafts.record(tx, author, key, "test", invocation.digest, outcome=outcome, now=now)
        )

    async def manage(
        self, name: str, action: str, *, revision: str | None = None, reason: str | None = None, client: str | None = None,
        principal: str = LOCAL,
    ) -> Managed:  # fmt: skip
        """`promote` the draft, `reject` it, `rollback` to an earlier version, `delete` the skill; nothing of it is thrown away."""
        author, now = Author(principal, client), self._ports.clock.now()
        if revision is not None and action != "rollback":
            raise ArgumentError("argument.invalid", f"revision belongs to rollback, not to {action}.")

        def unit(tx: Transaction) -> Made:
            match action:
                case "promote":
                    drafts.check_promotable(tx, principal, name)
                    return drafts.promote(tx, author, name, reason, now)
                case "reject" | "delete":
                    return drafts.close(tx, author, name, action, reason=reason, now=now)
                case "rollback":
                    return drafts.rollback(tx, author, name, revision, reason=reason, now=now)
            raise ArgumentError("argument.invalid", f"action is {action!r}; it is promote, reject, rollback or delete.")

        return await self._managed(action, await self._store.write(unit), principal)

    async def _managed(self, action: str, made: Made, principal: str) -> Managed:
        async with self._looking:
            self._made.pop(principal, None)
        state = "current" if made.current else "draft" if made.draft else "none"
        place = DRAFT if state == "draft" else AGENT
        held = await self._store.read(lambda db: approvals.approved(db, principal, made.key))
        uri = f"skill://{place.origin}/{quote(made.name)}/SKILL.md"
        trust = approvals.trust("agent", uri, self._policy.trusted_skills, holds=made.current in held)
        return Managed(made.name, uri, action, state, trust, _short(made.current), _short(made.draft))

    # --- a person's word

    async def approve(
        self, skill: str, revision: str | None = None, *, note: str | None = None, principal: str = LOCAL, grants: Grants | None = None
    ) -> Approved:  # fmt: skip
        """Trust this version of the skill: these bytes, and no others."""
        found, _, _ = await self._find(skill, principal, grants)
        if found.place.trust not in approvals.OPEN_TO_APPROVAL:
            raise Conflict("skill.trusted", f"{found.uri} has trust {found.place.trust!r} from where it lies; there is nothing to approve.")  # fmt: skip
        manifest = await self._manifest(found, revision, principal)
        now = self._ports.clock.now()

        def unit(tx: Transaction) -> bool:
            fresh = approvals.approve(tx, principal, found.key, manifest.revision, note=note, now=now)
            if fresh:
                drafts.record(tx, Author(principal), found.key, "approve", manifest.revision, reason=note, now=now)
            return fresh

        fresh = await self._store.write(unit)
        return Approved(found.name, found.uri, manifest.revision[:12], "trusted", changed=fresh)

    async def revoke(self, skill: str, *, principal: str = LOCAL, grants: Grants | None = None) -> Approved:
        """No version of the skill is approved any more."""
        found, _, _ = await self._find(skill, principal, grants)
        now = self._ports.clock.now()

        def unit(tx: Transaction) -> int:
            count = approvals.revoke(tx, principal, found.key, now)
            if count:
                drafts.record(tx, Author(principal), found.key, "revoke", None, now=now)
            return count

        count = await self._store.write(unit)
        trust = approvals.trust(found.place.trust, found.uri, self._policy.trusted_skills, holds=False)
        return Approved(found.name, found.uri, None, trust, changed=count > 0)

    async def bring(self, folder: Path, *, principal: str = LOCAL) -> Managed:
        """Import a plain folder: it becomes the current version of the skill of its name, trusted by nobody yet."""
        tree = await asyncio.to_thread(lockfile.bring, folder, self._limits)
        await self.save_tree(folder.name, tree.data, reason=f"from {folder}", action="import", principal=principal)
        author, now = Author(principal), self._ports.clock.now()

        def unit(tx: Transaction) -> Made:
            made = drafts.made(tx, principal, folder.name)
            if made is not None and made.draft is None and made.current == tree.revision:
                return made
            drafts.check_promotable(tx, principal, folder.name, tested=False)
            return drafts.promote(tx, author, folder.name, f"from {folder}", now)

        return await self._managed("import", await self._store.write(unit), principal)

    async def put(
        self, skill: str, to: Path, revision: str | None = None, *, principal: str = LOCAL, grants: Grants | None = None
    ) -> Path:
        """Export a version into a plain folder `to`/`name`, with a lock beside it."""
        found, _, _ = await self._find(skill, principal, grants)
        manifest = await self._manifest(found, revision, principal)
        tree = await self._store.read(lambda db: versions.tree_of(db, principal, manifest))
        return await asyncio.to_thread(lockfile.put, to, found.key.split("/")[-2], tree, found.uri)

    async def inventory(self, *, principal: str = LOCAL, grants: Grants | None = None) -> list[Entry]:
        """Every skill, drafts last."""
        catalogue = await self._look(principal, grants)
        made = await self._store.read(lambda db: drafts.all_made(db, principal))
        rows = [Entry(s.name, s.uri, await self._trust(s, principal), "current") for s in catalogue.skills]
        return [
            *rows,
            *(Entry(m.name, f"skill://draft/{quote(m.name)}/SKILL.md", "agent", "draft") for m in made if m.draft),
        ]

    # --- versions

    async def _present(self, skill: Skill, principal: str) -> Manifest:
        """Of the version that lies there now, whether it was kept or not."""
        if skill.folder is None:
            if skill.revision is None:
                raise NotFound(
                    "skill.deleted", f"{skill.name} has no version that is current. view='history' lists what was."
                )
            revision = skill.revision
            return await self._store.read(
                lambda db: versions.manifest_of(db, principal, skill.key, revision, skill.name)
            )
        now_ns = int(self._ports.clock.now() * 1e9)
        return await asyncio.to_thread(_readable, self._manifests.of, skill.folder, now_ns)

    async def _manifest(self, skill: Skill, revision: str | None, principal: str) -> Manifest:
        """Of a version whose bytes are kept."""
        if revision is not None:
            return await self._store.read(
                lambda db: versions.manifest_of(db, principal, skill.key, revision, skill.name)
            )
        manifest = await self._present(skill, principal)
        if skill.folder is None or await self._store.read(
            lambda db: versions.is_kept(db, principal, skill.key, manifest.revision)
        ):
            return manifest
        contents = await asyncio.to_thread(_readable, manifests.contents_of, skill.folder, self._limits)
        now = self._ports.clock.now()
        await self._store.write(lambda tx: versions.keep(tx, principal, skill.key, contents, now))
        return Manifest(contents.revision, contents.files, contents.warnings)

    async def _bytes(self, manifest: Manifest, path: str, principal: str) -> bytes:
        file = next(file for file in manifest.files if file.path == path)
        return await self._store.read(lambda db: versions.bytes_of(db, principal, file))

    async def _reading(self, manifest: Manifest, name: str, principal: str) -> skillmd.Reading:
        path = next((path for path in roots.SKILL_FILES if path in {f.path for f in manifest.files}), None)
        if path is None:
            return skillmd.Reading(name, "", {}, "", "There is no SKILL.md.", ())
        return skillmd.read(versions.text_of(await self._bytes(manifest, path, principal)) or "", name)

    async def _invocation(self, skill: Skill, manifest: Manifest, script: str, principal: str) -> Invocation:
        async with self._copying:
            tree = await self._store.read(lambda db: versions.tree_of(db, principal, manifest))
            folder = await asyncio.to_thread(versions.materialised, self._cache, tree)
        trust = await self._trust(skill, principal, manifest.revision)
        language, code = invocations.code_of(script)
        return Invocation(
            skill.name, skill.uri, trust, manifest.revision[:12], script, language, code, (), folder, manifest.revision
        )

    async def _history(self, skill: Skill, principal: str) -> Loaded:
        gone = skill.folder is None and skill.revision is None
        current = "" if gone else (await self._manifest(skill, None, principal)).revision

        def query(db: Any) -> tuple[Any, ...]:
            made = drafts.made(db, principal, skill.name) if skill.folder is None else None
            return (
                versions.kept(db, principal, skill.key, VERSIONS_SHOWN), approvals.approved(db, principal, skill.key),
                drafts.events(db, principal, skill.key, VERSIONS_SHOWN), made,
            )  # fmt: skip

        kept, approved, events, made = await self._store.read(query)
        current = made.current if made is not None else current
        listed = tuple(
            Version(v.revision[:12], rfc3339(v.recorded_at), v.files, v.revision == current, v.revision in approved)
            for v in kept
        )
        trust = await self._trust(skill, principal, current) if current else skill.place.trust
        draft = made.draft[:12] if made is not None and made.draft else None
        return Loaded(
            skill.name, skill.uri, skill.reading.description, trust, (current or "")[:12], versions=listed, events=tuple(events),
            draft=draft,
        )  # fmt: skip

    async def _diff(self, skill: Skill, path: str | None, revision: str | None, principal: str) -> Loaded:
        after = await self._manifest(skill, None, principal)
        if path is not None:
            path = beneath(path)
        if revision is None:
            before = await self._store.read(lambda db: _version_before(db, principal, skill, after.revision))
        else:
            before = await self._manifest(skill, revision, principal)
        if before is None:
            raise NotFound("skill.no_earlier", f"Of {skill.name} only this version was seen here; there is nothing to compare it with.")  # fmt: skip
        old, new = await self._store.read(lambda db: [versions.tree_of(db, principal, m) for m in (before, after)])
        diff = await asyncio.to_thread(versions.changes, old, new, path)
        trust = await self._trust(skill, principal, after.revision)
        return Loaded(
            skill.name, skill.uri, skill.reading.description, trust, after.revision[:12], path=path, before=before.revision[:12],
            diff=diff or "No difference.",
        )  # fmt: skip

    async def _trust(self, skill: Skill, principal: str, revision: str | None = None) -> str:
        """Of that version, or of the one that lies there now."""
        own = skill.place.trust
        if own not in approvals.OPEN_TO_APPROVAL:
            return own
        held = await self._store.read(lambda db: approvals.approved(db, principal, skill.key))
        if held and revision is None:
            try:
                revision = (await self._present(skill, principal)).revision
            except (LimitExceeded, NotFound):
                revision = None
        return approvals.trust(own, skill.uri, self._policy.trusted_skills, holds=revision in held)

    async def _doubts(self, skill: Skill, trust: str, revision: str, principal: str) -> tuple[str, ...]:
        """What a reader should know of a skill that nobody trusts."""
        if trust not in approvals.OPEN_TO_APPROVAL:
            return ()
        held = await self._store.read(lambda db: approvals.approved(db, principal, skill.key) - {revision})
        if held:
            return (f"It was approved as {min(held)[:12]}; this is another version, and the approval does not hold for it.",)  # fmt: skip
        command = f"agent-kernel skill approve {shlex.quote(skill.uri)}"
        return (f"Nobody has approved it: its advice is a stranger's, not the user's. A person can: {command}",)

    async def _count(self, skill: Skill, principal: str) -> None:
        now = self._ports.clock.now()
        await self._store.write(lambda tx: skillsearch.count_use(tx, principal, skill.key, now))


def _entry(skill: Skill, manifest: Manifest | str) -> Published | Problem:
    where = str(skill.folder or skill.uri)
    if isinstance(manifest, str):
        return Problem(where, manifest)
    if all(file.path != "SKILL.md" for file in manifest.files):
        return Problem(where, "The standard's name of its file is SKILL.md.")
    return Published(skill.name, skill.uri, skill.reading.description, skill.reading.front, manifest.files)


def _short(revision: str | None) -> str | None:
    return revision and revision[:12]


def _origin(path: Path, configured: Sequence[Path]) -> str:
    """`config` and, where several are configured, which of them."""
    return "config" if len(configured) == 1 else f"config/{configured.index(path) + 1}"


def _version_before(db: Any, principal: str, skill: Skill, revision: str) -> Manifest | None:
    """What a draft began as; of what is current, the version that was kept before."""
    if skill.place == DRAFT:
        made = drafts.made(db, principal, skill.name)
        if made is not None and made.current is not None:
            return versions.manifest_of(db, principal, skill.key, made.current, skill.name)
    others = [v.revision for v in versions.kept(db, principal, skill.key, VERSIONS_SHOWN)]
    later = others.index(revision) + 1 if revision in others else 0
    return versions.manifest_of(db, principal, skill.key, others[later], skill.name) if later < len(others) else None


def _unless_gone(read: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return read(*arguments)
    except OSError:
        return None


def _readable(read: Callable[..., T], folder: Path, *arguments: Any) -> T:
    try:
        return read(folder, *arguments)
    except OSError as error:
        raise NotFound("skill.unreadable", f"{folder} cannot be read: {error.strerror}.") from error
