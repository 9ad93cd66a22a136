"""Skills: folders with a SKILL.md that tell a model how to do something, and scripts it may run. Nothing is executed here.

    <state>/skills                                   the user's          trust user
    folders of `skills` in config.toml               the operator's      trust trusted
    kernel/builtin_skills                            ours                trust bundled
    .agents/skills, .claude/skills of shared folders the project's       trust community

Of two skills with one name the one that stands higher in this list is meant; each stays reachable by its uri
`skill://<origin>/<folder>/SKILL.md`. A skill is read when it is asked for; what was read is kept under the digest of its bytes, so that
what a run once used can be read again when the folder has changed.

Guarantees
1. skills.broken: a folder whose SKILL.md cannot be read hides no other skill and is not served; `problems` says why.
2. skills.versions: a version that was loaded or run is kept, by the digest of its files; nothing is overwritten. `view="history"` lists.
3. skills.path: a path of a file or script stays beneath its skill, or is `path.outside`.
4. skills.script: what `script` hands out is a copy of exactly the version it names: checked byte by byte, read-only files.
5. skills.trust: it comes from where the skill lies, never from what it says about itself.
6. A search answers from an index that is at most as old as the last change of a folder.

Format: `skill` is the content table of `skill_fts`; `skill_version` has a manifest of paths, sizes and digests, whose bytes are in the
store's blobs.

If the process dies: a version is there with all its bytes or not at all; a half-made copy has another name and is never handed out.
"""

import asyncio
import base64
import bisect
import difflib
import json
import shlex
import shutil
import sqlite3
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from .base import ranking, roots, skillmd, wording
from .base.errors import ArgumentError, CallerError, LimitExceeded, NotFound
from .base.limits import Limits
from .base.policy import Policy
from .base.ports import LOCAL, Ports, rfc3339
from .base.roots import Contents, File, Root
from .base.store import Migrations, Store, Transaction, put_blob
from .base.workspace import checked_path

__all__ = [
    "MIGRATIONS",
    "Found",
    "Invocation",
    "Listed",
    "Loaded",
    "Problem",
    "Published",
    "Skills",
    "Version",
    "validate",
]

MIGRATIONS: Migrations = {
    1: """
    CREATE TABLE skill(
        n INTEGER PRIMARY KEY, principal TEXT NOT NULL, uri TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL,
        trust TEXT NOT NULL, UNIQUE(principal, uri)) STRICT;
    CREATE VIRTUAL TABLE skill_fts USING fts5(
        name, description, content='skill', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2');
    CREATE TABLE skill_version(
        principal TEXT NOT NULL, uri TEXT NOT NULL, revision TEXT NOT NULL, manifest TEXT NOT NULL, recorded_at REAL NOT NULL,
        PRIMARY KEY(principal, uri, revision)) STRICT, WITHOUT ROWID;
    """,
}

BUILT_IN = Path(__file__).parent / "builtin_skills"
BRIEF_CHARS = 240
"""Of a description in search results: five of them cost a model about 300 tokens."""
PAGE_FILES_MAX = 2000
"""Of all skills of one page of `published`; a page holds at least one skill."""
LANGUAGES = {".py": "python", ".sh": "bash", ".bash": "bash"}
RUN_PYTHON = """import os, sys
__file__ = sys.argv[0] = os.path.join(os.environ.get("SKILL", "/skill"), {path!r})
sys.path.insert(0, os.path.dirname(__file__))
with open(__file__, "rb") as source:
    exec(compile(source.read(), __file__, "exec"))
"""
"""In the globals of `__main__`, as `python script.py` does, so that pickling and threads find the script's names."""
RUN_BASH = """exec bash "${{SKILL:-/skill}}"/{path} "$@"\n"""


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


@dataclass(frozen=True, slots=True)
class Listed:
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """SKILL.md with the list of files, or one file (`path`), or the versions that were seen (`versions`)."""

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
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invocation:
    """What has to be run so that a script of a skill runs: `code` in `language`, with `skill_folder` mounted at $SKILL."""

    name: str
    uri: str
    trust: str
    revision: str
    script: str
    language: str
    code: str
    argv: tuple[str, ...]
    skill_folder: Path


@dataclass(frozen=True, slots=True)
class Published:
    """A skill as another host may load it: its front matter as it stands, and every file with its size and SHA-256."""

    name: str
    uri: str
    description: str
    frontmatter: dict[str, Any]
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    folder: str
    problem: str


class _Skill(NamedTuple):
    folder: Path
    uri: str
    trust: str
    reading: skillmd.Reading

    @property
    def base(self) -> str:
        return self.uri.removesuffix("SKILL.md")


class _Catalogue(NamedTuple):
    skills: tuple[_Skill, ...]
    """By precedence: the first of a name is the one that is meant."""
    problems: tuple[Problem, ...]
    published: tuple[_Skill, ...]
    """By uri: those that are meant by their name and that the standard allows to be served to other hosts."""
    unpublished: tuple[Problem, ...]


class _Version(NamedTuple):
    revision: str
    files: tuple[File, ...]
    data: dict[str, bytes]
    warnings: tuple[str, ...]


class Skills:
    def __init__(self, *, store: Store, ports: Ports, limits: Limits, policy: Policy) -> None:
        self._store = store
        self._ports = ports
        self._limits = limits
        self._cache = store.folder / "skill-cache"
        shared = [folder.path / name / "skills" for folder in policy.grants.folders for name in (".agents", ".claude")]
        self._roots = [
            Root(store.folder / "skills", "user", "user"),
            *(Root(path, _origin(path, policy.skills), "trusted") for path in policy.skills),
            Root(BUILT_IN, "kernel", "bundled"),
            *(Root(path, f"project/{path.parent.parent.name}", "community") for path in shared),
        ]
        self._looking = asyncio.Lock()
        self._readings: dict[tuple[Path, str], skillmd.Reading] = {}
        self._views: list[roots.View] = []
        self._known = _Catalogue((), (), (), ())
        self._indexed: dict[str, _Catalogue] = {}
        self._contents: dict[Path, tuple[Any, Contents]] = {}
        self._manifests: dict[Path, tuple[Any, tuple[File, ...]]] = {}
        self._unserved: dict[Path, Problem] = {}

    async def search(self, query: str, limit: int = 5, *, principal: str = LOCAL) -> list[Found]:
        """Skills whose name or description has words of the query, best first."""
        if not 1 <= limit <= 100:
            raise ArgumentError("argument.invalid", f"limit is {limit}; give 1 to 100.")
        catalogue = await self._look()
        await self._index(principal, catalogue)
        match = wording.any_of(f'"{word}"' for word in wording.kept_of(query))
        if not match:
            return []
        rows = await self._store.read(
            lambda db: db.execute(
                "SELECT s.name, s.description, s.uri, s.trust, -f.rank FROM skill_fts f CROSS JOIN skill s ON s.n=f.rowid"
                " WHERE skill_fts MATCH ? AND s.principal=? ORDER BY f.rank, s.n LIMIT ?",
                (match, principal, limit),
            ).fetchall()
        )
        return [
            Found(name, ranking.excerpt(description, BRIEF_CHARS, uri), uri, trust, round(score / rows[0][4], 3))
            for name, description, uri, trust, score in rows
        ]

    async def load(
        self,
        skill: str,
        path: str | None = None,
        revision: str | None = None,
        view: str = "content",
        *,
        principal: str = LOCAL,
    ) -> Loaded:
        """By name, by uri, or by the uri of one of its files."""
        found, inner, shadowed = _meant(await self._look(), skill)
        path = path or inner
        if view == "history":
            return await self._history(found, principal)
        if view != "content":
            raise ArgumentError("argument.invalid", f"view is {view!r}; it is 'content' or 'history'.")
        version = await self._version(found, revision, principal)
        reading = found.reading
        about = Loaded(reading.name, found.uri, reading.description, found.trust, version.revision[:12])
        if path is None:
            if revision is not None:
                reading = skillmd.read(_text(version.data[_skill_file(version.data)]) or "", found.folder.name)
            warnings = (*reading.warnings, *version.warnings, *shadowed)
            files = tuple(Listed(file.path, file.size_bytes) for file in version.files)
            return replace(about, body=reading.body, files=files, warnings=warnings)
        data = version.data[_existing(found, _beneath(path), version.data)]
        text = _text(data)
        return replace(
            about, path=path, text=text, base64=None if text is not None else base64.b64encode(data).decode()
        )

    async def script(
        self, skill: str, script: str | None = None, revision: str | None = None, *, principal: str = LOCAL
    ) -> Invocation:
        """A script of a skill, ready to be run; without a name the only one it has."""
        found, inner, _ = _meant(await self._look(), skill)
        version = await self._version(found, revision, principal)
        script = script or inner or _only_script(found, version.data)
        script = _existing(found, _beneath(script), version.data)
        language = LANGUAGES.get(Path(script).suffix)
        if language is None:
            raise ArgumentError(
                "skill.language", f"{script} of {found.reading.name} is not a .py, .sh or .bash file; it cannot be run."
            )
        folder = await asyncio.to_thread(_materialised, self._cache, version)
        code = RUN_PYTHON.format(path=script) if language == "python" else RUN_BASH.format(path=_shell_quoted(script))
        return Invocation(
            found.reading.name, found.uri, found.trust, version.revision[:12], script, language, code, (), folder
        )

    async def problems(self) -> list[Problem]:
        """Folders that look like skills and are not served, and what was not searched."""
        return list((await self._look()).problems)

    async def names(self) -> list[str]:
        """The names that `load` understands, for completion."""
        return sorted({skill.reading.name for skill in (await self._look()).skills})

    async def published(self, after: str = "", limit: int = 100) -> tuple[list[Published], bool]:
        """Skills that other hosts may load, by uri, at most `limit` after the uri `after`; and whether there are more."""
        published = (await self._look()).published
        start = bisect.bisect_right(published, after, key=lambda skill: skill.uri)
        return await asyncio.to_thread(self._page, published[start:], limit)

    async def publication(self, uri: str) -> Published:
        """One of them by the uri of its SKILL.md, also one that another of its name hides. NotFound."""
        for skill in (await self._look()).skills:
            if skill.uri == uri and not skillmd.publishing_errors(skill.reading):
                entry = await asyncio.to_thread(self._entry, skill)
                if entry is not None:
                    return entry
        raise NotFound("skill.unknown", f"No skill is served at {uri[:200]}. skills/list gives the uris.")

    async def unpublished(self) -> list[Problem]:
        """Skills that load here and that other hosts would refuse, and why."""
        return [*(await self._look()).unpublished, *self._unserved.values()]

    def _page(self, skills: Sequence[_Skill], limit: int) -> tuple[list[Published], bool]:
        entries: list[Published] = []
        files = 0
        for skill in skills:
            entry = self._entry(skill)
            if entry is None:
                continue
            files += len(entry.files)
            if len(entries) == limit or (entries and files > PAGE_FILES_MAX):
                return entries, True
            entries.append(entry)
        return entries, False

    def _entry(self, skill: _Skill) -> Published | None:
        problem = None
        try:
            files = self._manifest(skill.folder)
            if all(file.path != "SKILL.md" for file in files):
                problem = "The standard's name of its file is SKILL.md."
        except LimitExceeded as error:
            problem = error.message
        except OSError as error:
            problem = f"It cannot be read: {error.strerror}."
        if problem is not None:
            self._unserved[skill.folder] = Problem(str(skill.folder), problem)
            return None
        self._unserved.pop(skill.folder, None)
        reading = skill.reading
        return Published(reading.name, skill.uri, reading.description, reading.front, files)

    def _manifest(self, folder: Path) -> tuple[File, ...]:
        signature = roots.signature_of(folder, int(self._ports.clock.now() * 1e9))
        known = self._manifests.get(folder)
        if known is not None and signature is not None and known[0] == signature:
            return known[1]
        files = roots.contents_of(folder, self._limits).files
        self._manifests[folder] = (signature, files)
        return files

    # --- the catalogue

    async def _look(self) -> _Catalogue:
        async with self._looking:
            return await asyncio.to_thread(self._catalogue)

    def _catalogue(self) -> _Catalogue:
        now_ns = int(self._ports.clock.now() * 1e9)
        views = [roots.look(root, now_ns) for root in self._roots]
        if len(views) != len(self._views) or any(new is not old for new, old in zip(views, self._views, strict=True)):
            self._known = self._read(views)
            self._views = views
        return self._known

    def _read(self, views: Sequence[roots.View]) -> _Catalogue:
        skills: list[_Skill] = []
        problems: list[Problem] = []
        readings: dict[tuple[Path, str], skillmd.Reading] = {}
        for root, view in zip(self._roots, views, strict=True):
            problems += [Problem(str(root.path), text) for text in view.left_out]
            for folder, text, problem in view.skills:
                if text is not None:
                    known = self._readings.get((folder, text))
                    reading = readings[folder, text] = known or skillmd.read(text, folder.name)
                    problem = reading.problem  # noqa: PLW2901
                if problem is not None:
                    problems.append(Problem(str(folder), problem))
                    continue
                where = folder.relative_to(root.path).as_posix() if folder != root.path else folder.name
                named = "" if folder.name == reading.name or skillmd.publishing_errors(reading) else f"/{reading.name}"
                uri = f"skill://{quote(root.origin)}/{quote(where + named)}/SKILL.md"
                skills.append(_Skill(folder, uri, root.trust, reading))
        self._readings = readings
        return _Catalogue(tuple(skills), tuple(problems), *_published(skills))

    async def _index(self, principal: str, catalogue: _Catalogue) -> None:
        if self._indexed.get(principal) is not catalogue:
            rows = [(s.uri, s.reading.name, s.reading.description, s.trust) for s in catalogue.skills]
            await self._store.write(lambda tx: _reindex(tx, principal, rows))
            self._indexed[principal] = catalogue

    # --- versions

    async def _version(self, found: _Skill, revision: str | None, principal: str) -> _Version:
        if revision is not None:
            return await self._store.read(lambda db: _kept(db, principal, found, revision))
        contents = await asyncio.to_thread(self._contents_of, found.folder)
        asked = (principal, found.uri, contents.revision)
        known = await self._store.read(
            lambda db: db.execute(
                "SELECT 1 FROM skill_version WHERE principal=? AND uri=? AND revision=?", asked
            ).fetchone()
        )
        if known is None:
            now = self._ports.clock.now()
            await self._store.write(lambda tx: _keep(tx, principal, found.uri, contents, now))
        return _Version(contents.revision, contents.files, contents.data, contents.warnings)

    def _contents_of(self, folder: Path) -> Contents:
        try:
            signature = roots.signature_of(folder, int(self._ports.clock.now() * 1e9))
            known = self._contents.get(folder)
            if known is not None and signature is not None and known[0] == signature:
                return known[1]
            contents = roots.contents_of(folder, self._limits)
        except OSError as error:
            raise NotFound("skill.unreadable", f"{folder} cannot be read: {error.strerror}.") from error
        self._contents = {folder: (signature, contents)}  # one: the skill at hand is asked for file by file
        return contents

    async def _history(self, found: _Skill, principal: str) -> Loaded:
        current = (await self._version(found, None, principal)).revision
        asked = "SELECT revision, recorded_at, manifest FROM skill_version WHERE principal=? AND uri=? ORDER BY recorded_at DESC"
        rows = await self._store.read(lambda db: db.execute(asked, (principal, found.uri)).fetchall())
        versions = tuple(
            Version(revision[:12], rfc3339(at), len(json.loads(manifest)), revision == current)
            for revision, at, manifest in rows[:100]
        )
        reading = found.reading
        return Loaded(reading.name, found.uri, reading.description, found.trust, current[:12], versions=versions)


def validate(folder: Path, limits: Limits) -> dict[str, Any]:
    """`{path, strict: {valid, errors}, loads, publishable, warnings}` of one skill folder: what the standard's validator says, whether
    hosts load it, and whether the MCP skills extension may serve it.
    """
    errors: list[str]
    reading: skillmd.Reading | None = None
    warnings: list[str] = []
    path = next((folder / name for name in roots.SKILL_FILES if (folder / name).exists()), None)
    if not folder.exists():
        errors = [f"Path does not exist: {folder}"]
    elif not folder.is_dir():
        errors = [f"Not a directory: {folder}"]
    elif path is None:
        errors = ["Missing required file: SKILL.md"]
    else:
        name = folder.resolve().name if folder.name in ("", "..") else folder.name
        try:
            text = path.read_text(encoding="utf8")
            errors = skillmd.strict_errors(text, name)
            reading = skillmd.read(text, name)
        except UnicodeDecodeError as error:
            errors = [f"Invalid YAML in frontmatter: the file is not UTF-8 (byte {error.start})"]
        except OSError as error:
            errors = [f"{path.name} cannot be read: {error.strerror}"]
    loads = reading is not None and reading.problem is None
    publishable = False
    if reading is not None:
        warnings += [reading.problem] if reading.problem else list(reading.warnings)
        try:
            warnings += roots.contents_of(folder, limits).warnings
            publishable = loads and not skillmd.publishing_errors(reading)
        except (LimitExceeded, OSError) as error:
            warnings.append(str(error))
    return {
        "path": str(folder), "strict": {"valid": not errors, "errors": errors},
        "loads": loads, "publishable": publishable, "warnings": warnings,
    }  # fmt: skip


# --- names, uris, paths


def _published(skills: Sequence[_Skill]) -> tuple[tuple[_Skill, ...], tuple[Problem, ...]]:
    meant: dict[str, _Skill] = {}
    for skill in skills:
        meant.setdefault(skill.reading.name, skill)
    fit, unfit = [], []
    for skill in meant.values():
        errors = skillmd.publishing_errors(skill.reading)
        if errors:
            unfit.append(Problem(str(skill.folder), "; ".join(errors)))
        else:
            fit.append(skill)
    return tuple(sorted(fit, key=lambda skill: skill.uri)), tuple(unfit)


def _origin(path: Path, configured: Sequence[Path]) -> str:
    """`config` and, where several are configured, which of them."""
    return "config" if len(configured) == 1 else f"config/{configured.index(path) + 1}"


def _meant(catalogue: _Catalogue, asked: str) -> tuple[_Skill, str | None, tuple[str, ...]]:
    """The skill, the file of it that a uri names, and a warning for each other skill of the same name."""
    if asked.startswith("skill://"):
        asked = asked.removesuffix("/") + "/"
        for skill in catalogue.skills:
            if asked.startswith(skill.base):
                inner = unquote(asked[len(skill.base) : -1])
                return skill, inner if inner not in ("", "SKILL.md") else None, ()
        raise NotFound("skill.unknown", f"There is no skill {asked.removesuffix('/')}. skill_search gives the uris.")
    name = unicodedata.normalize("NFKC", asked.strip())
    named = [skill for skill in catalogue.skills if skill.reading.name == name]
    if named:
        others = [skill.uri for skill in named[1:]]
        return named[0], None, tuple(f"Another skill has this name: {uri}" for uri in others)
    for folder, problem in ((Path(p.folder), p.problem) for p in catalogue.problems):
        if folder.name == asked:
            raise NotFound(
                "skill.broken",
                f"{folder} is no skill that can be loaded. {problem.rstrip('.')}. Mend it; `agent-kernel skill validate {shlex.quote(str(folder))}` checks it.",
            )
    near = difflib.get_close_matches(asked, [skill.reading.name for skill in catalogue.skills], 1)
    hint = f"Did you mean {near[0]!r}?" if near else "Look for one with skill_search."
    raise NotFound("skill.unknown", f"There is no skill {asked!r}. {hint}")


def _beneath(path: str) -> str:
    try:
        return checked_path(path)
    except CallerError:
        raise ArgumentError(
            "path.outside",
            f"{path[:200]!r} is not a path beneath the skill. Use names like `scripts/run.py` from its list of files.",
        ) from None


def _existing(found: _Skill, path: str, data: dict[str, bytes]) -> str:
    if path not in data:
        near = difflib.get_close_matches(path, data, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(data)[:20])}."
        raise NotFound("skill.file_unknown", f"{found.reading.name} has no file {path!r}. {hint}")
    return path


def _only_script(found: _Skill, data: dict[str, bytes]) -> str:
    scripts = [path for path in sorted(data) if path.startswith("scripts/") and Path(path).suffix in LANGUAGES]
    if len(scripts) != 1:
        known = f"Say which: {', '.join(scripts[:20])}." if scripts else "It has none."
        raise ArgumentError(
            "argument.missing", f"script is not given, and {found.reading.name} has not exactly one. {known}"
        )
    return scripts[0]


def _skill_file(data: dict[str, bytes]) -> str:
    return next(name for name in roots.SKILL_FILES if name in data)


def _text(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def _shell_quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


# --- rows


def _reindex(tx: Transaction, principal: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Make the index hold exactly `rows`; what stayed the same is not touched."""
    wanted = {row[0]: row for row in rows}
    for n, *known in tx.execute(
        "SELECT n, uri, name, description, trust FROM skill WHERE principal=?", (principal,)
    ).fetchall():
        if wanted.get(known[0]) == tuple(known):
            del wanted[known[0]]
            continue
        tx.execute(
            "INSERT INTO skill_fts(skill_fts, rowid, name, description) VALUES('delete',?,?,?)", (n, known[1], known[2])
        )
        tx.execute("DELETE FROM skill WHERE n=?", (n,))
    for uri, name, description, trust in wanted.values():
        n = tx.execute(
            "INSERT INTO skill(principal, uri, name, description, trust) VALUES(?,?,?,?,?)",
            (principal, uri, name, description, trust),
        ).lastrowid
        tx.execute("INSERT INTO skill_fts(rowid, name, description) VALUES(?,?,?)", (n, name, description))


def _keep(tx: Transaction, principal: str, uri: str, contents: Contents, now: float) -> None:
    for file in contents.files:
        put_blob(tx, principal, file.digest, contents.data[file.path], None)
    tx.execute(
        "INSERT INTO skill_version VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
        (principal, uri, contents.revision, json.dumps(contents.files), now),
    )


def _kept(db: sqlite3.Connection, principal: str, found: _Skill, revision: str) -> _Version:
    asked = "SELECT revision, manifest FROM skill_version WHERE principal=? AND uri=? AND substr(revision, 1, ?)=?"
    rows = db.execute(asked, (principal, found.uri, len(revision), revision)).fetchall()
    if len(rows) != 1 or len(revision) < 8:
        raise NotFound(
            "skill.revision_unknown",
            f"{found.reading.name} has no one version {revision!r} that was seen here. view='history' lists them.",
        )
    files = tuple(File(*entry) for entry in json.loads(rows[0][1]))
    asked = "SELECT data FROM blob WHERE principal=? AND digest=?"
    data = {file.path: bytes(db.execute(asked, (principal, file.digest)).fetchone()[0]) for file in files}
    return _Version(rows[0][0], files, data, ())


# --- copies


def _materialised(cache: Path, version: _Version) -> Path:
    """The folder with exactly this version's files. A copy that is not exactly that is thrown away and made again."""
    folder = cache / version.revision
    if _holds(folder, version):
        return folder
    cache.mkdir(mode=0o700, exist_ok=True)
    fresh = cache / f".{version.revision}.new"
    for left in (fresh, folder):
        shutil.rmtree(left, ignore_errors=True)
    for file in version.files:
        path = fresh / file.path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(version.data[file.path])
        path.chmod(0o444)
    fresh.rename(folder)
    assert _holds(folder, version)
    return folder


def _holds(folder: Path, version: _Version) -> bool:
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    return there.keys() == version.data.keys() and all(
        not path.is_symlink() and path.read_bytes() == version.data[name] for name, path in there.items()
    )
