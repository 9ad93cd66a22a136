"""Skills: what finding them, listing them with digests, searching and validating cost, and what they cost a model.

    skills.index        134 skills, 1,258 files, 16 MB that nobody has looked at: until the last page of entries with digests is there,
                        beside reading and hashing the same files plainly
    skills.list         the same again, nothing has changed, beside a stat of the same files
    skills.mcp_list     the same over MCP on stdio; with --peers beside FastMCP's skills extension over the same folder
    skills.search_600, _10k    the five best, beside a plain FTS5 query for the same words on the same tables
    skills.validate     one skill's verdicts; with --peers beside the reference validator
    skills.tokens       what a model is shown of a skill, by the o200k vocabulary (with --peers) and in bytes

The folders are made up: sizes, numbers of files and lengths of descriptions as public collections have them, words by chance. What is
looked for has a word of its own in each description. File systems stamp times in ticks, so folders rest `REST_S` before they are used.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from agent_kernel import skills as kernel_skills
from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.scheduler import Scheduler
from agent_kernel.skills import Skills
from mcp import Client, StdioServerParameters
from mcp_types import PaginatedRequestParams, Request
from pydantic import BaseModel

from .controls import nothing
from .finders import fts_query
from .interleave import Absent, Case, Contender
from .peers import Pin, imported, installed, interpreter_of
from .survey import Table

__all__ = ["PINS", "cases"]

FASTMCP = Pin("FastMCP", "PyPI", "fastmcp", "4.1.2")
REFERENCE = Pin("skills-ref", "PyPI", "skills-ref", "0.1.1")
VOCABULARY = Pin("bpe-openai", "PyPI", "bpe-openai", "0.1.4")
PINS = (FASTMCP, REFERENCE, VOCABULARY)

SKILLS, FILES, BYTES = 134, 1_258, 16 << 20
MANY, VERY_MANY = 600, 10_000
SMOKE = 20
REST_S = 2.1
FOUND = 5

FASTMCP_SERVER = """
import sys
from fastmcp import FastMCP
from fastmcp.server.providers.skills import SkillsDirectoryProvider
from fastmcp.skills.extension import SkillsExtension
provider = SkillsDirectoryProvider(roots=sys.argv[1], reload=True, experimental_skills=True)
server = FastMCP("skills", providers=[provider])
server.add_extension(SkillsExtension(providers=[provider]))
server.run(show_banner=False)
"""


@asynccontextmanager
async def cases(folder: Path, *, peers: Path | None, smoke: bool = False) -> AsyncIterator[list[Case | Table]]:
    divisor = SMOKE if smoke else 1
    real = _Collection(folder / "state" / "skills", SKILLS // divisor, FILES // divisor, BYTES // divisor)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_stored(folder / "state"))
        made: list[Case | Table] = [_index(real, store), _list(real, store), _over_mcp(real, peers, stack)]
        for name, count in (("600", MANY), ("10k", VERY_MANY)):
            state = folder / name
            many = _Collection(state / "skills", count // divisor, count // divisor, 0)
            made.append(_search(name, many, await stack.enter_async_context(_stored(state))))
        made += [_validate(real, peers), await _tokens(real, store, peers)]
        await asyncio.sleep(REST_S)
        yield made


# --- folders


class _Collection:
    """Made-up skills below `folder`, the same for the same numbers."""

    def __init__(self, folder: Path, skills: int, files: int, size: int) -> None:
        self.folder, self.files = folder, files
        chance = random.Random(skills)  # noqa: S311  (data of a benchmark)
        self.skills = [folder / f"{_word(chance)}-{_word(chance)}-{n}" for n in range(skills)]
        more = files - skills
        sizes = [chance.paretovariate(1.1) for _ in range(more)]
        each = iter([int(one / sum(sizes) * size) for one in sizes])
        for n, skill in enumerate(self.skills):
            skill.mkdir(parents=True)
            (skill / "SKILL.md").write_text(_skill_md(skill.name, n, chance), encoding="utf8")
            for number in range(more // skills + (n < more % skills)):
                path = skill / ("scripts", "references", "assets")[number % 3] / f"{number}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(chance.randbytes(next(each)).hex().encode()[::2])


def _word(chance: random.Random) -> str:
    return "".join(chance.choice("bdfgklmnprst") + chance.choice("aeiou") for _ in range(chance.choice((2, 3, 3, 4))))


def _marked(n: int) -> str:
    """A word that only the n-th description has."""
    return f"marmalade{n}"


def _skill_md(name: str, n: int, chance: random.Random) -> str:
    said = " ".join(_word(chance) for _ in range(chance.randrange(12, 45)))
    body = "\n".join(" ".join(_word(chance) for _ in range(12)) for _ in range(chance.randrange(20, 220)))
    return f'---\nname: {name}\ndescription: Use for {_marked(n)}, {said}.\nlicense: Apache-2.0\nmetadata:\n  version: "1.{n}"\n---\n\n# {name}\n\n{body}\n'


@asynccontextmanager
async def _stored(folder: Path) -> AsyncIterator[Store]:
    limits = Limits()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(
        folder, ports=Ports.real(), limits=limits, migrations=[kernel_skills.MIGRATIONS], spawn=scheduler.spawn
    )
    try:
        yield store
    finally:
        await store.close()
        await scheduler.close()


def _opened(store: Store) -> Skills:
    return Skills(store=store, ports=Ports.real(), limits=Limits(), policy=Policy())


# --- listing


async def _entries(skills: Skills) -> list[Any]:
    """All pages."""
    entries: list[Any] = []
    more = True
    while more:
        page, more = await skills.published(entries[-1].uri if entries else "")
        entries += page
    return entries


def _paths(folder: Path) -> Iterator[str]:
    for at, _, names in os.walk(folder):
        yield from (os.path.join(at, name) for name in names)  # noqa: PTH118  what a walk that is in a hurry does


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _all_listed(real: _Collection) -> Any:
    def wrong(entries: Sequence[Any], *_: Any) -> str | None:
        mine = [entry for entry in entries if entry.uri.startswith("skill://user/")]
        files = sum(len(entry.files) for entry in mine)
        right = (len(mine), files) == (len(real.skills), real.files)
        return None if right else f"{len(mine)} skills with {files} files, not {len(real.skills)} with {real.files}"

    return wrong


def _index(real: _Collection, store: Store) -> Case:
    async def plainly() -> int:
        return len([hashlib.sha256(_bytes(path)).hexdigest() for path in _paths(real.folder)])

    return Case(
        "skills.index",
        f"{len(real.skills)} skills with {real.files} files, never looked at: time until all entries with digests are there",
        [
            Contender("Skills.published", "subject", "front matter read, every file hashed; a page at a time", _entries, _all_listed(real), fresh=lambda: (_opened(store),)),
            Contender("read and hash", "control", "a walk, each file read and its SHA-256 taken", plainly, _counts(real)),
            nothing(),
        ],
        base="read and hash",
        passes=5,
        note="The files are in the page cache for both.",
    )  # fmt: skip


def _counts(real: _Collection) -> Any:
    return lambda count, *_: None if count == real.files else f"{count} files"


def _list(real: _Collection, store: Store) -> Case:
    known = _opened(store)

    async def again() -> list[Any]:
        return await _entries(known)

    async def plainly() -> int:
        return len([os.stat(path) for path in _paths(real.folder)])  # noqa: PTH116

    return Case(
        "skills.list",
        f"The same {len(real.skills)} skills again, nothing has changed",
        [
            Contender("Skills.published", "subject", "every folder and file looked at by its stat", again, _all_listed(real)),
            Contender("walk and stat", "control", "a walk, each file's stat", plainly, _counts(real)),
            nothing(),
        ],
        base="walk and stat",
    )  # fmt: skip


class _Listing(BaseModel):
    skills: list[dict[str, Any]]
    nextCursor: str | None = None  # noqa: N815  (the wire's name)


def _over_mcp(real: _Collection, peers: Path | None, stack: AsyncExitStack) -> Case:
    state = real.folder.parent.parent / "mcp"
    shutil.copytree(real.folder, state / "skills")
    state.chmod(0o700)
    ours = StdioServerParameters(
        command=sys.executable, args=["-m", "agent_kernel_mcp", "mcp", "--standalone", "--state", str(state)]
    )
    contenders = [_server(None, "this server; digests from what a stat says is unchanged", ours, real, stack)]
    absent = []
    if peers is not None and installed(peers, FASTMCP) == FASTMCP.version:
        theirs = StdioServerParameters(
            command=str(interpreter_of(peers)), args=["-c", FASTMCP_SERVER, str(real.folder)]
        )
        about = f"{FASTMCP.package} {FASTMCP.version}, SkillsDirectoryProvider(reload=True, experimental_skills=True), SkillsExtension"
        contenders.append(_server(FASTMCP, about, theirs, real, stack))
    else:
        absent.append(Absent(FASTMCP.peer, "not installed", "agent-kernel bench skills --peers"))
    return Case(
        "skills.mcp_list",
        f"The same {len(real.skills)} skills again, over MCP on stdio: all pages of skills/list",
        contenders,
        base=contenders[-1].name,
        passes=4,
        absent=absent,
        note="FastMCP hashes every file for every list.",
    )


def _server(
    pin: Pin | None, about: str, command: StdioServerParameters, real: _Collection, stack: AsyncExitStack
) -> Contender:
    """The server of a peer, or ours."""
    held: list[Client] = []

    async def listed() -> list[dict[str, Any]]:
        if not held:
            held.append(await stack.enter_async_context(Client(command, cache=None, read_timeout_seconds=120)))
        entries: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            asked = Request(method="skills/list", params=PaginatedRequestParams(cursor=cursor))
            page = await held[0].session.send_request(asked, _Listing)
            entries += page.skills
            cursor = page.nextCursor
            if cursor is None:
                return entries

    def wrong(entries: list[dict[str, Any]], *_: Any) -> str | None:
        names = {skill.name for skill in real.skills}
        mine = [entry for entry in entries if entry["frontmatter"]["name"] in names]
        files = sum(len(entry["resources"]) for entry in mine)
        right = (len(mine), files) == (len(names), real.files)
        return None if right else f"{len(mine)} skills with {files} files"

    return Contender(pin.peer if pin else "agent-kernel", "peer" if pin else "subject", about, listed, wrong)


# --- searching and validating


def _search(name: str, many: _Collection, store: Store) -> Case:
    skills = _opened(store)
    chance = random.Random(1)  # noqa: S311

    def question() -> tuple[str, int]:
        n = chance.randrange(len(many.skills))
        return f"how do I make {_marked(n)} out of {_word(chance)}?", n

    async def ours(asked: str, _: int) -> Any:
        return await skills.search(asked, FOUND)

    async def plainly(asked: str, _: int) -> Any:
        query = "SELECT rowid FROM skill_fts WHERE skill_fts MATCH ? ORDER BY rank LIMIT 5"
        return await store.read(lambda db: db.execute(query, (fts_query(asked),)).fetchall())

    def wrong(found: Sequence[Any], _: str, n: int) -> str | None:
        return None if many.skills[n].name in {one.name for one in found} else f"not found: {many.skills[n].name}"

    return Case(
        f"skills.search_{name}",
        f"The {FOUND} best of {len(many.skills)} skills for a question",
        [
            Contender("Skills.search", "subject", "folders looked at, uses counted in, descriptions cut", ours, wrong, fresh=question),
            Contender("plain FTS5", "control", "five row numbers for the same words, same file", plainly, lambda *_: None, fresh=question),
            nothing(),
        ],
        base="plain FTS5",
        passes=40,
    )  # fmt: skip


def _validate(real: _Collection, peers: Path | None) -> Case:
    next_skill = itertools.cycle(real.skills)

    async def ours(skill: Path) -> Any:
        return kernel_skills.validate(skill, Limits())

    async def plainly(skill: Path) -> int:
        return len([_bytes(path) for path in _paths(skill)])

    contenders = [
        Contender("validate", "subject", "strict, loads, publishable: SKILL.md parsed twice, files measured by their stat", ours, _valid, fresh=lambda: (next(next_skill),)),
        Contender("read", "control", "every file of the skill read", plainly, lambda *_: None, fresh=lambda: (next(next_skill),)),
    ]  # fmt: skip
    absent = []
    if peers is not None and installed(peers, REFERENCE) == REFERENCE.version:
        reference = imported(peers, "skills_ref").validate

        async def theirs(skill: Path) -> Any:
            return {"strict": {"valid": not reference(skill)}}

        about = f"{REFERENCE.package} {REFERENCE.version}, validate(folder); SKILL.md alone"
        contenders.append(Contender(REFERENCE.peer, "peer", about, theirs, _valid, fresh=lambda: (next(next_skill),)))
    else:
        absent.append(Absent(REFERENCE.peer, "not installed", "agent-kernel bench skills --peers"))
    return Case(
        "skills.validate",
        f"The verdict on one skill of {real.files // len(real.skills)} files",
        [*contenders, nothing()],
        base="read",
        passes=60,
        absent=absent,
    )


def _valid(verdict: Any, *_: Any) -> str | None:
    return None if verdict["strict"]["valid"] else f"{verdict}"


# --- tokens


async def _tokens(real: _Collection, store: Store, peers: Path | None) -> Table:
    skills = _opened(store)
    entries = [entry for entry in await _entries(skills) if entry.uri.startswith("skill://user/")]
    hits = [await skills.search(_marked(n), FOUND) for n in range(min(20, len(entries)))]
    shown = {
        "a hit of skill_search": [json.dumps({"name": h.name, "description": h.description, "uri": h.uri, "trust": h.trust}) for found in hits for h in found],
        "an entry of skills/list": [json.dumps({"uri": e.uri, "frontmatter": e.frontmatter, "resources": [{"uri": e.uri + f.path, "digest": f"sha256:{f.digest}", "size": f.size_bytes} for f in e.files]}) for e in entries],
        "its SKILL.md": [(skill / "SKILL.md").read_text(encoding="utf8") for skill in real.skills],
    }  # fmt: skip
    encode = None
    if peers is not None and installed(peers, VOCABULARY) is not None:
        with contextlib.suppress(ImportError):
            encode = imported(peers, "bpe_openai").get_encoding("o200k_base").encode
    rows = [
        (
            name,
            f"{statistics.median(len(text.encode()) for text in texts):.0f}",
            "not measured" if encode is None else f"{statistics.median(len(encode(text)) for text in texts):.0f}",
        )
        for name, texts in shown.items()
    ]
    note = "Medians over made-up words, which cost more tokens than English."
    return Table("skills.tokens", "What one skill costs a model that is shown", ("", "bytes", "tokens"), rows, note)
