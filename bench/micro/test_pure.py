"""Micro-benchmarks of what runs per call without touching disk or process: `pytest bench/micro`. For looking at one function while
changing it; comparisons with anything else belong to `agent-kernel bench`, where contenders take turns.
"""  # noqa: INP001  (collected by pytest, no package)

import asyncio
from typing import Any

from agent_kernel.base.ports import Ports
from agent_kernel.cell import frames
from agent_kernel.scheduler import Scheduler

CALLS = 1000


def test_frames_to_bytes_and_back(benchmark: Any) -> None:
    """A thousand calls of 100 bytes, as a guest sends them in one go."""
    payload = bytes(100)

    def there_and_back() -> int:
        stream = b"".join(frames.encode(frames.CALL, number, payload) for number in range(CALLS))
        return sum(1 for _ in frames.Reader(1 << 20).feed(stream))

    assert benchmark(there_and_back) == CALLS


def test_a_thousand_pieces_of_work_through_the_scheduler(benchmark: Any) -> None:
    """Ten principals with a hundred pieces each, four slots: the cost of fairness."""

    async def all_of_them() -> int:
        scheduler = Scheduler(slots=4, queue_max=CALLS)
        served = 0

        async def work() -> None:
            nonlocal served
            served += 1

        waiting = [scheduler.run(f"principal{number % 10}", work) for number in range(CALLS)]
        await asyncio.gather(*waiting)
        await scheduler.close()
        return served

    assert benchmark(lambda: asyncio.run(all_of_them())) == CALLS


def test_ids(benchmark: Any) -> None:
    ports = Ports.real()
    assert benchmark(lambda: ports.new_id("run")).startswith("run_")
