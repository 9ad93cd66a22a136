"""Kernels for tests: opened on a folder, closed whatever happens, and never waited for without a bound."""

import asyncio
import dataclasses
import textwrap

from agent_kernel import Kernel, Limits

PATIENCE_S = 60


def opened(folder, act, *, limits=None, **options):
    """`await act(kernel)` on a kernel of that state folder; what it returns."""

    async def main():
        async with Kernel.open(folder, limits=dataclasses.replace(Limits(), **(limits or {})), **options) as kernel:
            return await asyncio.wait_for(act(kernel), PATIENCE_S)

    return asyncio.run(main())


def program(body, *, before=""):
    """A program from the lines of its main."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return f"import asyncio, os, time\nimport kernel\n{textwrap.dedent(before)}\nasync def main(input):\n{lines}\n"


async def rested(kernel, run_id, **options):
    """The run when it has ended or waits for somebody."""
    seen = await kernel.runs.view(run_id, wait_s=PATIENCE_S, **options)
    assert seen["status"] != "working", seen
    return seen


async def until(kernel, run_id, fits, *, view="summary"):
    """The first view of the run that fits; looks again at each change."""
    while True:
        change = kernel.runs._change(run_id)
        seen = await kernel.runs.view(run_id, view)
        if fits(seen):
            return seen
        await asyncio.wait({change}, timeout=1)


async def ran(kernel, body, given=None, *, before="", **options):
    """Start a program and wait until it rests."""
    handle = await kernel.runs.start(program(body, before=before), input=given, **options)
    return await rested(kernel, handle.id)


async def approve(kernel, run_id, decision="approve", **options):
    seen = await kernel.runs.view(run_id)
    item = seen["waiting"][0]
    await kernel.runs.approve(run_id, item["item_id"], item["digest"], decision, channel="person", **options)
