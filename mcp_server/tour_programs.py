"""The programs that the tour sends into the sandbox, and the one that it shows to embedders. Text here; they run behind the wall."""

__all__ = ["ANALYSIS", "APPROVAL", "CONNECT", "EMBED", "FORK_BOMB", "ONE_STEP", "PEEK", "PROGRAM"]

ANALYSIS = """\
import csv, json
from statistics import correlation

birds = [b for b in csv.DictReader(open("penguins.csv")) if b["bill_length_mm"] != "NA"]

def length_to_depth(birds):
    return round(correlation([float(b["bill_length_mm"]) for b in birds], [float(b["bill_depth_mm"]) for b in birds]), 2)

found = {"birds": len(birds), "all": length_to_depth(birds)}
for species in sorted({b["species"] for b in birds}):
    found[species] = length_to_depth([b for b in birds if b["species"] == species])
json.dump(found, open("found.json", "w"))
print(json.dumps(found))
"""

PEEK = """\
import os, sys
for path in sys.stdin.read().split("\\n"):
    try:
        seen = os.listdir(path) if os.path.isdir(path) else open(path).read()
        print("READ", len(seen))
    except OSError as refusal:
        print("refused:", type(refusal).__name__)
"""

CONNECT = """\
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.stdin.read())), 2).close()
    print("CONNECTED")
except OSError as refusal:
    print("refused:", type(refusal).__name__)
"""

FORK_BOMB = """\
import os
while True:
    os.fork()
"""

PROGRAM = """\
import csv, random
from statistics import fmean

def weigh(masses):
    # Draw the flock again 300 times; the middle 95 % of the means tells how sure the mean is.
    means = sorted(fmean(random.choices(masses, k=len(masses))) for _ in range(300))
    return {"birds": len(masses), "mean_g": round(fmean(masses), 1), "from_g": round(means[7], 1), "to_g": round(means[292], 1)}

async def main(input):
    groups = {}
    for bird in csv.DictReader(open("penguins.csv")):
        if bird["sex"] != "NA":
            groups.setdefault(bird["species"] + " " + bird["sex"], []).append(float(bird["body_mass_g"]))
    weighed = {}
    for number, name in enumerate(sorted(groups), 1):
        weighed[name] = await kernel.step("weigh", weigh, groups[name])
        # Writes one more line at the end of a note of the kernel: done twice, it would stand there twice.
        await kernel.memory.edit(input["note"], name + "\\n(end)", old="(end)")
        kernel.progress(number, len(groups), name)
        await kernel.sleep(0.25)
    return weighed
"""

APPROVAL = """\
async def main(input):
    if not await kernel.approve("Publish the penguin report?", details={"to": input["to"], "birds": 344}):
        return {"published": False}
    await kernel.memory.add([{"text": "The penguin report went to " + input["to"], "key": input["to"]}])
    return {"published": True}
"""

ONE_STEP = """\
async def main(input):
    return await kernel.step("one", lambda: 1)
"""

EMBED = """\
import asyncio
from agent_kernel import Kernel

async def main():
    async with Kernel.open("state") as k:
        print((await k.sandbox.run("print(6*7)")).stdout)

asyncio.run(main())"""
