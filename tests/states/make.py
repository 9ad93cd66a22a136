"""Makes a state folder with something of everything in it; what tests/test_states.py opens with a newer kernel.

    python tests/states/make.py FOLDER && xz -9e -c FOLDER/kernel.db > tests/states/schema-N.db.xz

Run it with the code of the schema that is to be kept, before a migration is added. `schema-1` was made by the last commit before the
audit had a table, `schema-2` by the last one before memory had quarantine, `schema-3` by the last one before search read scripts without
blanks, `schema-4` by the last one before a run had the grants of its starter, `schema-5` by the last one before agents could write skills
(it has versions of a skill, whose folder is not there any more), `schema-6` by the last one before calls had stamps.
"""

import asyncio
import sys
from pathlib import Path

from agent_kernel import Kernel

WAITS = """
async def main(input):
    await kernel.memory.add([{"text": "the program was at the harbour", "source": "walk"}])
    before = await kernel.memory.search("harbour")
    said = await kernel.receive("go")
    after = await kernel.memory.search("harbour")
    return {"said": said, "before": len(before.hits), "after": len(after.hits)}
"""


async def main(folder):
    async with Kernel.open(folder) as k:
        m = k.memory
        await m.add([{"text": "lives in Berlin", "key": "city", "time": "2020-01-01"}])
        await m.add([{"text": "lives in Kiel", "key": "city", "time": "2024-01-01"}], trust="agent")
        await m.add([{"text": "Ada sails", "conversation": "c", "speaker": "Bob", "tags": ["sea"], "source": "log"}])
        await m.add([{"text": "Ada sails", "conversation": "c", "speaker": "Bob"}])
        [wrong] = await m.add([{"text": "tea is poison", "source": "page"}], trust="web")
        await m.forget([wrong.id], reason="it was wrong")
        await m.add([{"text": "Ada rows"}], principal="other")
        await m.edit("me", "I am Ada")
        skill = Path(folder) / "skills" / "tally"
        skill.mkdir(parents=True)
        for body in ("Count jars.", "Count jars twice."):
            (skill / "SKILL.md").write_text(f"---\nname: tally\ndescription: Counts.\n---\n{body}\n", encoding="utf8")
            await k.skills.load("tally")
        done = await k.runs.start("async def main(input):\n    return input", {"n": 1})
        await done.result()
        waits = await k.runs.start(WAITS, name="waits")
        while not any(
            step["kind"] == "memory.search" and step["status"] == "completed" for step in await steps(k, waits)
        ):
            await asyncio.sleep(0.05)


async def steps(kernel, handle):
    return (await kernel.runs.view(handle.id, "steps")).get("steps", [])


asyncio.run(main(sys.argv[1]))
