"""What is parked and what is handed out, with children that cost nothing."""

import asyncio

from agent_kernel.base.parking import Parking


class Child:
    def __init__(self):
        self.usable, self.abandoned, self.on_lost = True, False, None

    def abandon(self):
        self.abandoned = True


def parked_by(body):
    """Runs `body(parking, births)`: a birth is a future that the body settles."""
    births: list[asyncio.Future] = []
    tasks = []

    async def bear(_kind, *, rehearse):
        births.append(asyncio.get_running_loop().create_future())
        return await births[-1]

    async def run():
        loop = asyncio.get_running_loop()
        parking = Parking(
            bear, least=1, most=4, monotonic=loop.time, spawn=lambda work, _: tasks.append(loop.create_task(work))
        )
        try:
            await body(parking, births)
        finally:
            parking.close()
            for birth in births:
                if not birth.done():
                    birth.set_result(Child())
            await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(run(), 60))


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def test_who_waits_for_a_birth_gets_another_child_when_that_one_is_lost_at_once():
    async def body(parking, births):
        parking.open()
        await until(lambda: births)
        taking = asyncio.ensure_future(parking.take(None))
        await asyncio.sleep(0)
        lost, found = Child(), Child()
        lost.usable = False
        births[0].set_result(lost)
        await until(lambda: len(births) == 2)
        births[1].set_result(found)
        assert await taking is found
        assert lost.abandoned

    parked_by(body)


def test_a_child_that_is_lost_while_parked_is_not_handed_out():
    async def body(parking, births):
        parking.open()
        await until(lambda: births)
        lost, found = Child(), Child()
        births[0].set_result(lost)
        await until(lambda: parking.parked)
        lost.usable = False
        taking = asyncio.ensure_future(parking.take(None))
        await until(lambda: len(births) == 2)
        births[1].set_result(found)
        assert await taking is found
        assert lost.abandoned

    parked_by(body)


def test_closing_lets_go_of_the_parked_and_of_the_unborn():
    async def body(parking, births):
        parking.open()
        await until(lambda: births)
        first, second = Child(), Child()
        births[0].set_result(first)
        await until(lambda: parking.parked)
        await parking.take(None)
        parking.look_after()
        await until(lambda: len(births) == 2)
        parking.close()
        births[1].set_result(second)
        await until(lambda: second.abandoned)
        assert not first.abandoned

    parked_by(body)
