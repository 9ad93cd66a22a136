import asyncio
import random

import pytest
from agent_kernel.base.errors import Overloaded
from agent_kernel.scheduler import Scheduler


async def gather_in_order(scheduler, jobs):
    """Submit jobs `(principal, options)` while the only slot is taken, then let them run; the order in which they did."""
    order = []
    gate = asyncio.Event()

    async def work(name):
        order.append(name)

    blocker = asyncio.ensure_future(scheduler.run("blocker", gate.wait))
    while not scheduler.load().running:
        await asyncio.sleep(0)
    waiting = [
        asyncio.ensure_future(scheduler.run(principal, lambda name=(principal, i): work(name), **options))
        for i, (principal, options) in enumerate(jobs)
    ]
    while scheduler.load().waiting < len(jobs):
        await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(asyncio.gather(blocker, *waiting), 30)
    return order


def test_one_principal_cannot_push_another_back():
    jobs = [("flood", {})] * 50 + [("guest", {})] * 2
    order = asyncio.run(gather_in_order(Scheduler(slots=1, queue_max=100), jobs))
    assert [name for name, _ in order[:4]].count("guest") == 2


def test_service_follows_weight_and_cost():
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    rng = random.Random(7)
    jobs = [
        (name, {"weight": weights[name], "cost": rng.choice((0.5, 1.0, 3.0))}) for name in "abc" for _ in range(300)
    ]
    order = asyncio.run(gather_in_order(Scheduler(slots=1, queue_max=1000), jobs))
    got = dict.fromkeys(weights, 0.0)
    for name, index in order[:400]:  # all three still have work waiting
        got[name] += jobs[index][1]["cost"]
    shares = [got[name] / weights[name] for name in weights]
    assert max(shares) - min(shares) <= 3.0 * 2


def test_a_principals_own_work_goes_by_priority_then_deadline_then_arrival():
    jobs = [
        ("a", {"priority": "low"}),
        ("a", {"deadline": 9.0}),
        ("a", {"deadline": 3.0}),
        ("a", {"priority": "high"}),
        ("a", {"deadline": 3.0}),
    ]
    order = asyncio.run(gather_in_order(Scheduler(slots=1, queue_max=100), jobs))
    assert [index for _, index in order] == [3, 2, 4, 1, 0]


def test_priority_takes_nothing_from_another_principal():
    jobs = [("loud", {"priority": "high"})] * 10 + [("quiet", {"priority": "low"})] * 10
    order = asyncio.run(gather_in_order(Scheduler(slots=1, queue_max=100), jobs))
    assert [name for name, _ in order[:10]].count("quiet") == 5


def test_sleeping_earns_no_credit():
    async def main():
        scheduler = Scheduler(slots=1, queue_max=100)

        async def nothing():
            pass

        for _ in range(20):
            await scheduler.run("busy", nothing)
        return await gather_in_order(scheduler, [("late", {})] * 6 + [("busy", {})] * 6)

    assert [name for name, _ in asyncio.run(main())[:6]].count("late") == 3


def test_slots_bound_what_runs_at_once():
    async def main():
        scheduler = Scheduler(slots=3, queue_max=100)
        most = 0

        async def work():
            nonlocal most
            most = max(most, scheduler.load().running)
            await asyncio.sleep(0)

        await asyncio.gather(*(scheduler.run(f"p{i % 5}", work) for i in range(50)))
        return most, scheduler.load()

    most, load = asyncio.run(main())
    assert most == 3
    assert (load.running, load.waiting, load.principals) == (0, 0, 0)


def test_a_full_queue_refuses_at_once_with_a_time_to_come_back():
    async def main():
        scheduler = Scheduler(slots=1, queue_max=2)
        gate = asyncio.Event()
        jobs = [asyncio.ensure_future(scheduler.run("a", gate.wait)) for _ in range(3)]
        while scheduler.load().waiting < 2:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await scheduler.run("b", gate.wait)
        gate.set()
        await asyncio.gather(*jobs)
        return caught.value

    error = asyncio.run(main())
    assert error.retryable
    assert error.retry_after_s > 0


def test_cancelled_work_gives_its_slot_back():
    async def main():
        scheduler = Scheduler(slots=1, queue_max=10)
        running = asyncio.ensure_future(scheduler.run("a", asyncio.Event().wait))
        waiting = asyncio.ensure_future(scheduler.run("a", asyncio.Event().wait))
        while scheduler.load().waiting < 1:
            await asyncio.sleep(0)
        waiting.cancel()
        running.cancel()
        await asyncio.wait([waiting, running])

        async def answer():
            return 42

        assert await asyncio.wait_for(scheduler.run("b", answer), 30) == 42
        assert scheduler.load().running == 0

    asyncio.run(main())


def test_a_slot_that_arrives_with_the_cancellation_is_passed_on():
    async def main():
        scheduler = Scheduler(slots=1, queue_max=10)
        gate = asyncio.Event()
        first = asyncio.ensure_future(scheduler.run("a", gate.wait))
        second = asyncio.ensure_future(scheduler.run("a", gate.wait))
        while scheduler.load().waiting < 1:
            await asyncio.sleep(0)
        gate.set()
        await first  # its slot has been handed to `second`, which has not run yet
        second.cancel()
        await asyncio.wait([second])
        return scheduler.load()

    assert asyncio.run(main()).running == 0


def test_close_ends_every_task():
    async def main():
        scheduler = Scheduler(slots=1, queue_max=1)
        ended = []

        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        for i in range(3):
            scheduler.spawn(forever(), f"t{i}")
        await asyncio.sleep(0)
        await scheduler.close()
        return ended

    assert asyncio.run(main()) == [True] * 3
