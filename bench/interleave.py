"""The frame: contenders take turns, rounds are summed up by their medians, and every ratio comes from inside one run.

A case is one question ("a durable write, one at a time"); its contenders are the subject, controls (what the machine costs without
us) and peers. Measuring goes

    warm up                      every contender a few times, thrown away
    round 1   A B C  B C A  C A B ...      `passes` turns of each; the order moves on by one with each pass
    round 2   ...
    validate                     the kept outputs, after the last clock was read

Guarantees
1. Two contenders are never compared over different minutes: in each pass each runs once, so slow drift hits all alike.
2. No contender always runs after the same other one.
3. A ratio is taken inside one round, between that round's medians; shown is the median of the rounds, with the least and the greatest.
4. An output that is wrong makes the contender's numbers void, and the run a failure. Inputs are made before the clock starts.
5. A percentile is given only where enough turns stand behind it: p95 from 20, p99 from 100. Calls of one burst are one turn.

What is timed: `await once()`, from the call until its value is in the caller's hands; for peers that are commands, until output and
exit status are. `at_once` of n starts n calls in one moment and counts each from there.

Not here: any judgement of a time. If the process dies nothing is left but the folder of the run, which is temporary.
"""

import asyncio
import gc
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Absent", "Case", "Contender", "Outcome", "Role", "Series", "Summary", "measure", "percentile", "summarise"]

Role = Literal["subject", "control", "peer"]


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    role: Role
    about: str
    """What it does, with the versions and settings that make the comparison fair."""
    once: Callable[[], Awaitable[Any]]
    wrong: Callable[[Any], str | None]
    """What is wrong with an output; None when it is right."""
    together: Callable[[int], Awaitable[Sequence[Any]]] | None = None
    """n at once, where that is one act of its own; otherwise n calls of `once` are started together."""


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
    pause_s: float = 0.0
    """Between two turns, so that what one leaves behind (a process being torn down) is not charged to the next."""
    absent: Sequence[Absent] = ()
    note: str = ""


@dataclass(slots=True)
class Series:
    """One contender's samples: nanoseconds, one list a round."""

    contender: Contender
    rounds: list[list[int]] = field(default_factory=list)
    bursts: list[int] = field(default_factory=list)
    """Duration of each start-to-last-end, for `at_once` above one."""
    outputs: list[Any] = field(default_factory=list)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    case: Case
    series: Sequence[Series]
    rounds: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in microseconds. `p50` is the median of the rounds' medians; the other percentiles are over all samples."""

    name: str
    role: Role
    about: str
    samples: int
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


async def measure(
    case: Case, rounds: int, *, passes: int | None = None, on_round: Callable[[int], None] | None = None
) -> Outcome:
    """Run the case; a contender that raises is out from there on, with its reason kept."""
    passes = passes or case.passes
    series = [Series(contender) for contender in case.contenders]
    for one in series:
        for _ in range(max(1, min(3, passes // 4))):
            await _turn(one, case, None)
    for number in range(rounds):
        for one in series:
            one.rounds.append([])
        gc.collect()
        for turn in range(passes):
            for one in _rotated(series, turn + number):
                if case.pause_s:
                    await asyncio.sleep(case.pause_s)
                await _turn(one, case, one.rounds[-1])
        if on_round is not None:
            on_round(number + 1)
    for one in series:
        _validate(one)
    return Outcome(case, series, rounds)


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
            contender.name, contender.role, contender.about, 0, math.nan, math.nan, math.nan, None, None, (),
            None, None, None, math.nan, one.failure,
        )  # fmt: skip
    ratios = sorted(own * 1000 / base for own, base in zip(medians, base_medians, strict=False))
    turns = len(one.bursts) or len(every)
    seconds = (sum(one.bursts) if one.bursts else sum(every) * 1000) / 1e9
    return Summary(
        name=contender.name,
        role=contender.role,
        about=contender.about,
        samples=len(every),
        min=every[0],
        p25=percentile(every, 0.25),
        p50=statistics.median(medians),
        p95=percentile(every, 0.95) if turns >= 20 else None,
        p99=percentile(every, 0.99) if turns >= 100 else None,
        round_medians=tuple(medians),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=ratios[0] if ratios else None,
        ratio_high=ratios[-1] if ratios else None,
        per_second=len(every) / seconds,
        failure=one.failure,
    )


def _rotated(series: Sequence[Series], by: int) -> Iterator[Series]:
    for index in range(len(series)):
        yield series[(index + by) % len(series)]


async def _turn(one: Series, case: Case, samples: list[int] | None) -> None:
    """One turn of one contender. `samples` of None is the warm-up: its output is checked too, its time is not kept."""
    if one.failure is not None:
        return
    act = one.contender
    try:
        if case.at_once == 1:
            started = time.perf_counter_ns()
            output = await act.once()
            ended = [time.perf_counter_ns()]
            outputs: Sequence[Any] = [output]
        elif act.together is not None:
            started = time.perf_counter_ns()
            outputs = await act.together(case.at_once)
            ended = [time.perf_counter_ns()] * case.at_once
        else:
            started = time.perf_counter_ns()
            pairs = await asyncio.gather(*(_stamped(act.once) for _ in range(case.at_once)))
            outputs, ended = [value for value, _ in pairs], [end for _, end in pairs]
    except Exception as problem:  # noqa: BLE001  (whatever a contender raises is its result)
        one.failure = f"{type(problem).__name__}: {problem}"
        return
    one.outputs.extend(outputs)
    if samples is not None:
        samples.extend(end - started for end in ended)
        if case.at_once > 1:
            one.bursts.append(max(ended) - started)


async def _stamped(once: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    value = await once()
    return value, time.perf_counter_ns()


def _validate(one: Series) -> None:
    for output in one.outputs:
        problem = one.contender.wrong(output)
        if problem is not None:
            one.failure = f"wrong output: {problem}"
            return
