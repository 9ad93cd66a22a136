"""The run's clock never falls, and its alarm rings at the earliest moment it was asked for."""

import asyncio

from agent_kernel.base.runclock import Alarm, RunClock


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self, wall=1000.0):
        self.wall, self.mono, self.slept = wall, 50.0, []

    def now(self):
        return self.wall

    def monotonic(self):
        return self.mono

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.mono += seconds
        await asyncio.sleep(0)


def test_it_goes_with_the_steady_clock_whatever_the_wall_clock_does():
    hands = Hands()
    clock = RunClock(hands, epoch=990.0)
    seen = [clock.t()]
    hands.wall -= 500
    hands.mono += 5
    seen.append(clock.t())
    hands.wall += 5000
    seen.append(clock.t())
    assert seen == [10.0, 15.0, 15.0]


def test_after_a_restart_it_is_at_least_what_is_recorded():
    clock = RunClock(Hands(wall=900.0), epoch=990.0)  # the machine's clock was set back
    clock.at_least(42.0)
    assert clock.t() == 42.0


def test_a_floor_is_kept_until_the_clock_has_passed_it():
    hands = Hands()
    clock = RunClock(hands, epoch=1000.0)
    clock.at_least(7.0)
    hands.mono += 3
    assert clock.t() == 7.0
    hands.mono += 5
    assert clock.t() == 8.0


def test_waiting_ends_when_the_clock_is_there_and_sleeps_no_more_than_an_hour_at_once():
    hands = Hands()
    clock = RunClock(hands, epoch=1000.0)
    asyncio.run(clock.until(9000.0))
    assert hands.slept == [3600.0, 3600.0, 1800.0]
    assert clock.t() >= 9000.0


def test_an_alarm_rings_for_the_earliest_request():
    async def main():
        hands, rung = Hands(), []
        alarm = Alarm(hands, lambda work, name: asyncio.create_task(work, name=name))
        alarm.within(10.0, lambda: rung.append("late"), "a")
        alarm.within(2.0, lambda: rung.append("early"), "a")
        alarm.within(5.0, lambda: rung.append("never"), "a")
        alarm.within(float("inf"), lambda: rung.append("never"), "a")
        for _ in range(5):
            await asyncio.sleep(0)
        return rung, hands.slept

    assert asyncio.run(main()) == (["early"], [2.0])
