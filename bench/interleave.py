"""The frame: contenders take turns, rounds are summed up by their medians, and every ratio comes from inside one run.

A case is one question ("a durable write, one at a time"); its contenders are the subject, controls (what the machine costs without
us) and peers. Measuring goes

    warm up                      every contender a few times, thrown away
    round 1   A B C  B C A  C A B ...      `passes` turns of each; the order moves on by one with each pass
    round 2   ...
    validate                     every output against the input of its turn, after the last clock was read

A turn is one of
    one call                     timed from the call until its value is in the caller's hands
    `at_once` calls              a burst: each timed from the common start
    `at_once` calls, `spaced_s`  each timed from the moment that was set for its start, whether or not the caller was on time
    `at_once` clients, `slice_s` closed loops: each client asks again as soon as it has its answer, until the slice is over; the
                                 turn's one sample is the slice's real length by the number of answers

Guarantees
1. Two contenders are never compared over different minutes: in each pass each runs once, so slow drift hits all alike.
2. No contender always runs after the same other one.
3. A ratio is taken inside one round, between that round's medians; shown is the median of the rounds, with the least and the greatest.
4. An output that is wrong makes the contender's numbers void, and the run a failure. Inputs are made before the clock starts, and
   each turn has its own: an answer from elsewhere or from before is a wrong one.
5. A percentile is given only where enough samples stand behind it: p95 from 20, p99 from 100.
6. A peer that needs more than SLOW_S for a call takes part in each SLOW_EVERYth pass only, and in no turn of several calls. The
   report says so.

What is timed: `await once(...)`; for peers that are commands, until output and exit status are there.

Not here: any judgement of a time. If the process dies nothing is left but the folder of the run, which is temporary.
"""

import asyncio
import dataclasses
import gc
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Absent", "Case", "Contender", "Outcome", "Role", "Series", "Summary", "measure", "percentile", "summarise"]

Role = Literal["subject", "control", "peer"]

SLOW_S = 0.1
SLOW_EVERY = 4


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    role: Role
    about: str
    """What it does, with the versions and settings that make the comparison fair."""
    once: Callable[..., Awaitable[Any]]
    """Called with what `fresh` made for this turn."""
    wrong: Callable[..., str | None]
    """What is wrong with an output, given it and its input; None when it is right."""
    together: Callable[[int], Awaitable[Sequence[Any]]] | None = None
    """n at once, where that is one act of its own; otherwise n calls of `crowd` are started together."""
    crowd: Callable[..., Awaitable[Any]] | None = None
    """`once` for a caller who has others to serve, where `once` itself would block them."""
    alone: str = ""
    """Why several at once cannot be asked of it."""
    ready: Callable[[], Awaitable[None]] | None = None
    """Awaited before the clock of each turn."""
    fresh: Callable[[], tuple[Any, ...]] = tuple


@dataclass(frozen=True, slots=True)
class Absent:
    """A peer that could not be measured here; reported as loudly as a number."""

    name: str
    why: str
    get: str


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    question: str
    contenders: Sequence[Contender]
    base: str
    """The contender that ratios are taken to."""
    passes: int = 20
    at_once: int = 1
    spaced_s: float = 0.0
    """Between two starts of one turn of several calls."""
    slice_s: float = 0.0
    """Above zero: `at_once` clients in closed loops, for so long."""
    pause_s: float = 0.0
    """Between two turns, so that what one leaves behind (a process being torn down) is not charged to the next."""
    absent: Sequence[Absent] = ()
    note: str = ""

    def brief(self) -> "Case":
        """The same with few calls: does everything run, and is it right?"""
        return dataclasses.replace(
            self, passes=min(self.passes, 2), at_once=min(self.at_once, 8), slice_s=min(self.slice_s, 0.05)
        )


@dataclass(slots=True)
class Series:
    """One contender's samples: nanoseconds, one list a round."""

    contender: Contender
    rounds: list[list[int]] = field(default_factory=list)
    bursts: list[int] = field(default_factory=list)
    """From the first start to the last end, of turns of several calls."""
    answered: int = 0
    answers: list[tuple[Any, tuple[Any, ...]]] = field(default_factory=list)
    """Each output with the input that it answers."""
    failure: str | None = None
    every: int = 1
    """It takes part in the first of so many passes."""
    left_out: str | None = None
    """Why it takes part in none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    case: Case
    series: Sequence[Series]
    rounds: int
    load: tuple[float, float] = (0.0, 0.0)
    """Load average of the last minute, before and after."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in microseconds. `p50` is the median of the rounds' medians; the other percentiles are over all samples."""

    name: str
    role: Role
    about: str
    samples: int
    every: int
    min: float
    p25: float
    p50: float
    p95: float | None
    p99: float | None
    round_medians: tuple[float, ...]
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    per_second: float
    failure: str | None
    left_out: str | None


async def measure(
    case: Case, rounds: int, *, passes: int | None = None, on_round: Callable[[int], None] | None = None
) -> Outcome:
    """Run the case; a contender that raises is out from there on, with its reason kept."""
    passes = passes or case.passes
    before = os.getloadavg()[0]
    series = [Series(contender) for contender in case.contenders]
    for one in series:
        await _warm_up(one, case, max(1, min(3, passes // 4)))
    for number in range(rounds):
        for one in series:
            one.rounds.append([])
        gc.collect()
        for turn in range(passes):
            for one in _rotated(series, turn + number):
                if turn % one.every:
                    continue
                if case.pause_s:
                    await asyncio.sleep(case.pause_s)
                await _turn(one, case, one.rounds[-1])
        if on_round is not None:
            on_round(number + 1)
    for one in series:
        _validate(one)
    return Outcome(case, series, rounds, (before, os.getloadavg()[0]))


def summarise(outcome: Outcome) -> list[Summary]:
    base = next(one for one in outcome.series if one.contender.name == outcome.case.base)
    base_medians = [statistics.median(samples) for samples in base.rounds if samples]
    return [_summary(one, base_medians if base.failure is None else []) for one in outcome.series]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the least sample that at least `share` of all samples do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _summary(one: Series, base_medians: list[float]) -> Summary:
    every = sorted(sample / 1000 for samples in one.rounds for sample in samples)
    medians = [statistics.median(samples) / 1000 for samples in one.rounds if samples]
    contender = one.contender
    if not every:
        return Summary(
            contender.name, contender.role, contender.about, 0, one.every, math.nan, math.nan, math.nan,
            None, None, (), None, None, None, math.nan, one.failure, one.left_out,
        )  # fmt: skip
    ratios = sorted(own * 1000 / base for own, base in zip(medians, base_medians, strict=False))
    seconds = (sum(one.bursts) if one.bursts else sum(every) * 1000) / 1e9
    return Summary(
        name=contender.name,
        role=contender.role,
        about=contender.about,
        samples=len(every),
        every=one.every,
        min=every[0],
        p25=percentile(every, 0.25),
        p50=statistics.median(medians),
        p95=percentile(every, 0.95) if len(every) >= 20 else None,
        p99=percentile(every, 0.99) if len(every) >= 100 else None,
        round_medians=tuple(medians),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=ratios[0] if ratios else None,
        ratio_high=ratios[-1] if ratios else None,
        per_second=one.answered / seconds,
        failure=one.failure,
        left_out=one.left_out,
    )


def _rotated(series: Sequence[Series], by: int) -> Iterator[Series]:
    for index in range(len(series)):
        yield series[(index + by) % len(series)]


async def _warm_up(one: Series, case: Case, turns: int) -> None:
    """Outputs are checked, times are not kept; but they tell which peer is too slow to be asked often."""
    if case.at_once > 1 and one.contender.alone:
        one.left_out = one.contender.alone
        return
    if one.contender.role == "peer":
        alone = dataclasses.replace(case, at_once=1, slice_s=0.0)
        taken: list[int] = []
        for _ in range(2):  # the first call of all may have filled a cache
            await _turn(one, alone, taken)
        if taken and min(taken) > SLOW_S * 1e9:
            if case.at_once > 1 or case.slice_s:
                one.left_out = f"one call takes {min(taken) / 1e6:.0f} ms, which would be most of the run"
            one.every = SLOW_EVERY
            return
    for _ in range(turns if case.at_once == 1 else 1):
        await _turn(one, case, None)


async def _turn(one: Series, case: Case, samples: list[int] | None) -> None:
    """One turn of one contender; without `samples` its times are not kept."""
    if one.failure is not None or one.left_out is not None:
        return
    act = one.contender
    calls = 1 if case.slice_s else case.at_once
    given = [act.fresh() for _ in range(calls)]
    try:
        if act.ready is not None:
            await act.ready()
        began = time.perf_counter_ns()
        if case.slice_s:
            answers, taken = await _slice(act, case)
        elif case.at_once == 1:
            started = time.perf_counter_ns()
            output = await act.once(*given[0])
            taken, answers = [time.perf_counter_ns() - started], [(output, given[0])]
        elif act.together is not None:
            started = time.perf_counter_ns()
            outputs = await act.together(case.at_once)
            taken = [time.perf_counter_ns() - started] * case.at_once
            answers = list(zip(outputs, given, strict=True))
        else:
            answers, taken = await _crowd(act, case, given)
        lasted = time.perf_counter_ns() - began
    except Exception as problem:  # noqa: BLE001  (whatever a contender raises is its result)
        one.failure = f"{type(problem).__name__}: {problem}"
        return
    one.answers.extend(answers)
    if samples is not None:
        samples.extend(taken)
        one.answered += len(answers)
        if case.at_once > 1 or case.slice_s:
            one.bursts.append(lasted)


async def _crowd(
    act: Contender, case: Case, given: Sequence[tuple[Any, ...]]
) -> tuple[list[tuple[Any, tuple[Any, ...]]], list[int]]:
    """All at once, or one each `spaced_s`. The clock of each starts when it was due, so a caller held up is charged to it.

    Between two starts the loop looks at what has arrived: some contenders hold it up for as long as a process takes to start.
    """
    ask = act.crowd or act.once
    started = time.perf_counter_ns()

    async def one(due: int, inputs: tuple[Any, ...]) -> tuple[Any, int]:
        since = min(due, time.perf_counter_ns())  # a timer may fire a little early
        output = await ask(*inputs)
        return output, time.perf_counter_ns() - since

    calls = []
    for number, inputs in enumerate(given):
        due = started + int(number * case.spaced_s * 1e9)
        await asyncio.sleep(max(0.0, (due - time.perf_counter_ns()) / 1e9))
        calls.append(asyncio.ensure_future(one(due, inputs)))
    done = await asyncio.gather(*calls)
    return [(output, inputs) for (output, _), inputs in zip(done, given, strict=True)], [taken for _, taken in done]


async def _slice(act: Contender, case: Case) -> tuple[list[tuple[Any, tuple[Any, ...]]], list[int]]:
    """Answers that come after the end count, and so does the time until the last of them."""
    ask = act.crowd or act.once
    answers: list[tuple[Any, tuple[Any, ...]]] = []
    started = time.perf_counter_ns()

    async def client() -> None:
        while time.perf_counter_ns() - started < case.slice_s * 1e9:
            given = act.fresh()
            answers.append((await ask(*given), given))

    await asyncio.gather(*(client() for _ in range(case.at_once)))
    return answers, [(time.perf_counter_ns() - started) // len(answers)]


def _validate(one: Series) -> None:
    for output, given in one.answers:
        problem = one.contender.wrong(output, *given)
        if problem is not None:
            one.failure = f"wrong output: {problem}"
            return
