"""A kernel to be killed: carries one run to its end, and writes down, outside, every body that it is about to have executed.

    victim.py STATE COUNTS [POINT NUMBER]     SIGKILL itself at the NUMBER-th passing of a point of the store

COUNTS is opened O_APPEND: a line survives any kill. `run N` is written before the guest is told to run the function of step N, `tool ID`
before a tool does its work. The last line of stdout is the run's view as JSON, and before it the number of commits.
"""

import asyncio
import dataclasses
import json
import os
import signal
import sys

from agent_kernel import Kernel, Ports
from agent_kernel.base.cell import Cell
from agent_kernel.cell import frames

PROGRAM = '''
import asyncio
import kernel

CHILD = """
import kernel
async def main(input):
    await kernel.memory.edit("child", "c,$", old="$")
    return "child"
"""

async def main(input):
    async def branch(b):
        await kernel.memory.edit(f"log{b}", "$")
        for i in range(input["rounds"]):
            await kernel.tool("count", id=f"{b}.{i}")
            await kernel.step(f"step {b}.{i}", lambda: i)
            await kernel.memory.edit(f"log{b}", f"{i},$", old="$")
            await kernel.sleep(0.003 * b)

    await kernel.memory.edit("child", "$")
    await asyncio.gather(*(branch(b) for b in range(input["branches"])))
    in_doubt = 0
    for i in range(3):
        try:
            await kernel.step(f"once {i}", lambda: i, effect="at_most_once")
        except kernel.Error as error:
            assert error.code == "step.in_doubt", error
            in_doubt += 1
    said = await kernel.spawn(CHILD, {})
    return [said, in_doubt]
'''


class Counting:
    """A tool whose effect is a line in the file."""

    def __init__(self, counts):
        self._counts = counts

    async def call(self, principal, name, arguments):  # noqa: ARG002  (the port of tools)
        os.write(self._counts, f"tool {arguments['id']}\n".encode())
        return {"done": arguments["id"]}


def count_runs(counts):
    """Every RUN that is sent to a guest leaves a line first."""
    send = Cell.send

    async def counted(self, data):
        for frame in frames.Reader(1 << 30).feed(data):
            if frame.type == frames.RUN:
                os.write(counts, f"run {frame.number}\n".encode())
        await send(self, data)

    Cell.send = counted


def killer(point, number):
    passed = 0

    def probe(name):
        nonlocal passed
        passed += name == point
        if name == point and passed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return probe


async def main(state, counts, point=None, number=0):
    out = os.open(counts, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    count_runs(out)
    ports = dataclasses.replace(Ports.real(), tools=Counting(out), probe=killer(point, int(number)) if point else None)
    async with Kernel.open(state, ports=ports) as kernel:
        handle = await kernel.runs.start(PROGRAM, input={"rounds": 4, "branches": 3}, idempotency_key="victim")
        print("started", flush=True)
        while True:
            change = kernel.runs._change(handle.id)
            for item in await kernel.runs.items():
                assert item["kind"] == "resolve", item
                await kernel.runs.answer_item(item["item_id"], "deny")
            view = await kernel.runs.view(handle.id)
            if view["status"] not in ("working", "input_required"):
                break
            await asyncio.wait({change}, timeout=1)
        blocks = {block.label: block.text for block in await kernel.memory.blocks()}
        print(kernel.store.commits)
        print(json.dumps({**view, "blocks": blocks}))


asyncio.run(main(*sys.argv[1:]))
