"""Principals do not meet: whatever one does, the other is told exactly what he would be told if he were alone.

With one exception, which docs/THREATS.md names: the index counts words over all principals, so the order and the scores of a search with
a query follow how common a word is for all of them. The hits themselves do not.
"""

import asyncio
import base64
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import pytest
from agent_kernel.base.errors import KernelError, NotFound
from agent_kernel.base.policy import MemoryRules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from test_memory import Clock, opened, texts

WORDS = ("tea", "boat", "harbour", "sail", "lights", "green")
RULES = MemoryRules(quarantine=frozenset({"web"}))

text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
label = st.sampled_from((None, "x", "y"))
trust = st.sampled_from(("web", "guest", "agent", "user"))
which = st.integers(0, 5)
"""Of the ids that this principal has seen; one past the end is an id of the other one."""
add = st.tuples(st.just("add"), st.lists(text, min_size=1, max_size=4), label, label, label, trust)
search = st.one_of(
    st.tuples(st.just("search"), st.none(), label, st.booleans(), st.integers(1, 4)),
    st.tuples(st.just("search"), text, label, st.booleans(), st.just(100)),
)
operation = st.one_of(
    add,
    add,
    add,
    search,
    search,
    search,
    st.just(("page",)),
    st.tuples(st.just("forget"), which, st.booleans()),
    st.tuples(st.just("forget_source"), st.sampled_from(("x", "y")), st.booleans()),
    st.tuples(st.just("edit"), st.sampled_from(("x", "y")), text),
    st.just(("blocks",)),
    st.just(("stats",)),
    st.tuples(st.just("text"), which),
    st.tuples(st.just("release"), which),
    st.just(("quarantined",)),
)


class Person:
    """Acts as one principal, and keeps what was said to it, ids replaced by the order in which they came."""

    def __init__(self, memory, name):
        self.memory = memory
        self.name = name
        self.ids = []
        self.heard = []
        self.cursor = None

    async def act(self, op, foreign):
        try:
            said = await self._do(op, foreign)
        except KernelError as error:
            said = (error.code, error.message)
        self.heard.append(self._neutral(json.dumps(said, default=dataclasses.asdict), foreign))

    async def _do(self, op, foreign):
        m, who = self.memory, {"principal": self.name}
        match op:
            case "add", words, key, source, conversation, channel:
                items = [{"text": one, "key": key, "source": source, "conversation": conversation} for one in words]
                added = await m.add(items, trust=channel, **who)
                self.ids += [one.id for one in added if one.id not in self.ids]
                return added
            case "search", query, key, everything, limit:
                self.cursor = {"query": query, "key": key, "include_retired": everything, "limit": limit}
                return await self._page(None)
            case ("page",):
                return await self._page(self.cursor.pop("next", None)) if self.cursor else None
            case "forget", number, erase:
                return await m.forget([self._id(number, foreign)], mode="erase" if erase else "retract", **who)
            case "forget_source", source, erase:
                return await m.forget(source=source, mode="erase" if erase else "retract", **who)
            case "edit", name, words:
                return await m.edit(name, words, **who)
            case ("blocks",):
                return await m.blocks(**who)
            case ("stats",):
                return await m.stats(**who)
            case "text", number:
                return await m.text(self._id(number, foreign), **who)
            case "release", number:
                return await m.release([self._id(number, foreign)], **who)
            case ("quarantined",):
                return await m.quarantined(**who)

    async def _page(self, cursor):
        page = await self.memory.search(
            **{name: value for name, value in self.cursor.items() if name != "next"}, cursor=cursor, principal=self.name
        )
        self.cursor["next"] = page.cursor
        if self.cursor["query"]:
            page = dataclasses.replace(
                page, hits=sorted((dataclasses.replace(hit, score=None) for hit in page.hits), key=self._place)
            )
        return page, page.cursor and base64.urlsafe_b64decode(page.cursor).decode()

    def _place(self, hit):
        return self.ids.index(hit.id)

    def _id(self, number, foreign):
        return self.ids[number] if number < len(self.ids) else foreign

    def _neutral(self, said, foreign):
        for number, one in enumerate(self.ids):
            said = said.replace(one, f"<{number}>")
        return said.replace(foreign, "<foreign>")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.booleans(), operation), min_size=4, max_size=24))
def test_nothing_of_one_principal_is_in_what_another_is_told(plan):
    async def run():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            async with (
                opened(folder / "both", Clock(), rules=RULES) as both,
                opened(folder / "alone", Clock(), rules=RULES) as alone,
            ):
                ada, bob, ada_alone = Person(both, "ada"), Person(both, "bob"), Person(alone, "ada")
                for mine, op in plan:
                    if mine:
                        await ada.act(op, bob.ids[0] if bob.ids else "mem_aaaaaaaaaaaa")
                        await ada_alone.act(op, "mem_aaaaaaaaaaaa")
                        assert ada.heard[-1] == ada_alone.heard[-1], op
                    else:
                        await bob.act(op, ada.ids[0] if ada.ids else "mem_aaaaaaaaaaaa")

    asyncio.run(run())


def test_one_who_erases_everything_erases_only_his_own(tmp_path):
    """What a memory server once did: `delete_all` of one user wiped every user's."""

    async def run():
        async with opened(tmp_path / "state") as m:
            for who in ("ada", "bob"):
                await m.add(
                    [{"text": f"claim {n} of {who}", "source": "s", "conversation": "c"} for n in range(5)],
                    principal=who,
                )
                await m.edit("me", who, principal=who)
            for filters in ({"source": "s"}, {"conversation": "c"}, {"source": "s", "conversation": "c"}):
                await m.forget(**filters, mode="erase", principal="ada")
                assert len((await m.search("claim", principal="bob")).hits) == 5
                await m.forget(**filters, mode="retract", principal="ada")
            ids = [hit.id for hit in (await m.search("claim", principal="bob")).hits]
            for mode in ("retract", "erase"):
                with pytest.raises(NotFound, match="Nothing was changed"):
                    await m.forget(ids, mode=mode, principal="ada")
                assert (await m.forget(ids, source="s", mode=mode, principal="ada")).count == 0
            assert len((await m.search("claim", principal="bob")).hits) == 5
            assert texts(await m.search("claim", principal="ada")) == []
            assert [(block.label, block.text) for block in await m.blocks(principal="bob")] == [("me", "bob")]

    asyncio.run(run())


def test_a_cursor_does_not_tell_how_much_others_have(tmp_path):
    async def run():
        cursors = []
        for others in (0, 50):
            async with opened(tmp_path / f"state{others}") as m:
                await m.add([{"text": f"of others {n}"} for n in range(others)], principal="other")
                await m.add([{"text": "buoy 1"}, {"text": "buoy 2"}])
                cursors.append(base64.urlsafe_b64decode((await m.search("buoy", limit=1)).cursor))
        assert cursors[0] == cursors[1]

    asyncio.run(run())
