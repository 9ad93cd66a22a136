"""An id of another principal answers, word for word, as one that never was: by every verb that takes one."""

import sys
from pathlib import Path

import pytest
from agent_kernel import Folder, Grants, KernelError

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, program, rested

THEIRS = "somebody"
ASKS = program("await kernel.approve('May I?')")
SENDS = program("await kernel.send(input, 'topic', {})")
JOINS = program("await kernel.memory.forget(ids=[input], reason='x')")
NEVER = {
    "run": "run_aaaaaaaaaaaa",
    "itm": "itm_aaaaaaaaaaaa",
    "mem": "mem_aaaaaaaaaaaa",
    "sbx": "sandbox://sbx_aaaaaaaaaaaa/files/a.txt",
}


def verbs(k, ids, out):
    """What somebody could do with each id, by name."""
    runs, answer = k.runs, {"digest": ids["digest"], "decision": "deny"}
    return {
        "view": lambda: runs.view(ids["run"]),
        "steps": lambda: runs.view(ids["run"], "steps"),
        "wait": lambda: runs.view(ids["run"], wait_s=5),
        "control": lambda: runs.control(ids["run"], "cancel"),
        "message": lambda: runs.send(ids["run"], topic="t", content={}),
        "answer": lambda: runs.send(ids["run"], item_id=ids["itm"], content={}),
        "answer in a run of mine": lambda: runs.send(ids["mine"], item_id=ids["itm"], content={}),
        "approve": lambda: runs.approve(ids["run"], ids["itm"], **answer),
        "approve in a run of mine": lambda: runs.approve(ids["mine"], ids["itm"], **answer),
        "answer_item": lambda: runs.answer_item(ids["itm"], "approve"),
        "text": lambda: k.memory.text(ids["mem"]),
        "forget": lambda: k.memory.forget([ids["mem"]], reason="x"),
        "supersede": lambda: k.memory.add([{"text": "x", "supersedes": [ids["mem"]]}]),
        "read": lambda: k.sandbox.read(uri=ids["sbx"]),
        "export": lambda: k.sandbox.export([ids["sbx"]], str(out), grants=Grants((Folder(out, writable=True),))),
        "send from a program": lambda: ended(k, SENDS, ids["run"]),
        "forget in a program": lambda: ended(k, JOINS, ids["mem"]),
    }


async def ended(k, source, given):
    handle = await k.runs.start(source, input=given)
    return await handle.result()


async def told(verb):
    try:
        return repr(await verb())
    except KernelError as error:
        return error.to_wire()


def test_another_s_id_answers_as_one_that_never_was(tmp_path):
    (tmp_path / "out").mkdir()

    async def act(k):
        theirs = await k.runs.start(ASKS, principal=THEIRS)
        mine = await k.runs.start(ASKS)
        [item] = (await rested(k, theirs.id, principal=THEIRS))["waiting"]
        await rested(k, mine.id)
        [fact] = await k.memory.add([{"text": "a secret"}], principal=THEIRS)
        ran = await k.sandbox.run("open('a.txt', 'w').write('secret')", principal=THEIRS)
        ids = {
            "run": theirs.id, "itm": item["item_id"], "mem": fact.id, "sbx": ran.files[0].uri, "digest": item["digest"], "mine": mine.id,
        }  # fmt: skip
        never = ids | NEVER
        seen = {}
        for name, verb in verbs(k, ids, tmp_path / "out").items():
            mine_told = str(await told(verb))
            for kind, known in NEVER.items():
                mine_told = mine_told.replace(ids[kind], known)
            seen[name] = (mine_told, str(await told(verbs(k, never, tmp_path / "out")[name])))
        assert (await k.runs.view(theirs.id, principal=THEIRS))["status"] == "input_required"
        assert await k.memory.text(fact.id, principal=THEIRS) == "a secret"
        return seen

    seen = opened(tmp_path / "state", act)
    assert {name: pair for name, pair in seen.items() if pair[0] != pair[1]} == {}
    assert {name for name, (one, _) in seen.items() if ".unknown" not in one} <= {
        "forget",
        "supersede",
        "forget in a program",
    }


@pytest.mark.parametrize("view", ["list", "items", "search", "blocks"])
def test_lists_hold_nothing_of_another(tmp_path, view):
    async def act(k):
        theirs = await k.runs.start(ASKS, principal=THEIRS)
        await rested(k, theirs.id, principal=THEIRS)
        await k.memory.add([{"text": "a secret"}], principal=THEIRS)
        await k.memory.edit("me", "a secret", principal=THEIRS)
        lists = {
            "list": k.runs.list, "items": k.runs.items, "search": lambda: k.memory.search("secret"),
            "blocks": k.memory.blocks,
        }  # fmt: skip
        shown = str(await lists[view]())
        return "secret" in shown or theirs.id in shown

    assert opened(tmp_path / "state", act) is False
