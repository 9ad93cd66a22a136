"""Programs with a nonce: what every contender of the sandbox's cases is asked.

    fresh()        prints a product of numbers that no earlier program had; the answer stands nowhere in its text
    holding()      prints its product, then waits HOLD_S with a number of threads that nothing else has, so that the process that
                   runs it can be found and looked at from outside

Guarantee: an answer that was kept, cached, guessed or echoed is a wrong one.
"""

import secrets
from dataclasses import dataclass
from typing import Literal

__all__ = ["HOLD_S", "Language", "Program", "fresh", "holding", "wrong"]

Language = Literal["python", "javascript"]

HOLD_S = 0.6
FACTOR = 1 << 26
"""Products stay below 2^53, which JavaScript counts exactly."""


@dataclass(frozen=True, slots=True)
class Program:
    text: str
    expected: str
    threads: int = 0
    """Of its process, where it makes itself known by them."""


def fresh(language: Language = "python") -> Program:
    a, b = (secrets.randbelow(FACTOR - 2) + 2 for _ in range(2))
    show = {"python": f"print({a} * {b})", "javascript": f"console.log({a} * {b})"}[language]
    return Program(show, f"{a * b}\n")


def holding(language: Language = "python", *, threads: bool = True, hold_s: float = HOLD_S) -> Program:
    """Without threads it is busy for about as long, in what every subset of Python has."""
    program = fresh(language)
    if not threads and language == "python":
        return Program(f"{program.text}\nfor number in range(2_000_000):\n    number + 1", program.expected)
    if language == "javascript":
        return Program(f"{program.text}; setTimeout(() => 0, {hold_s * 1000})", program.expected)
    extra = 3 + secrets.randbelow(6)
    text = (
        f"{program.text}\nimport _thread, time\n"
        f"for _ in range({extra}): _thread.start_new_thread(time.sleep, ({2 * hold_s},))\ntime.sleep({hold_s})"
    )
    return Program(text, program.expected, 1 + extra)


def wrong(output: str, program: Program) -> str | None:
    return None if output == program.expected else f"{output[-300:]!r}, not {program.expected!r}"
