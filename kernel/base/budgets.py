"""What a run may use, and whether it has. Pure: usage in, verdict out.

    wall_s       seconds on the run's clock since it began, waiting included
    steps        calls to the kernel that the program makes (each is one durable step)
    tool_calls   of these, calls that leave the kernel: tool, model, skill, sandbox.run

Guarantees
1. Only what is enforced is accepted: `cpu_s`, `tokens` and `cost_usd` are refused by name until they are.
2. A child's budget is at most what its parent has left, for every entry that the parent has.
3. The call that would pass the budget is not executed.

Not here: limits of one sandbox call (limits.py), turns between principals (scheduler.py).
"""

from collections.abc import Mapping
from typing import Any

from .errors import ArgumentError

__all__ = ["COUNTED", "checked", "exceeded", "narrowed"]

ENFORCED = ("wall_s", "steps", "tool_calls")
MOST = 1e12
"""More would be no budget, and past the numbers that clocks and JSON have."""
COUNTED = frozenset({"tool", "model", "skill", "sandbox.run"})


def checked(budget: Any) -> dict[str, float]:
    if budget is None:
        return {}
    if not isinstance(budget, Mapping):
        raise ArgumentError("argument.invalid", f"budget is an object with any of {', '.join(ENFORCED)}.")
    for name, value in budget.items():
        if name not in ENFORCED:
            raise ArgumentError(
                "budget.not_enforced",
                f"budget.{name} cannot be enforced by this kernel. It enforces {', '.join(ENFORCED)}.",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST:
            raise ArgumentError(
                "argument.invalid", f"budget.{name} is {value!r}; it is a number above zero, at most {MOST:g}."
            )
    return dict(budget)


def exceeded(budget: Mapping[str, float], usage: Mapping[str, float]) -> str | None:
    """The first entry that is used up, or None."""
    return next((name for name in ENFORCED if name in budget and usage.get(name, 0) > budget[name]), None)


def narrowed(child: Mapping[str, float], parent: Mapping[str, float], used: Mapping[str, float]) -> dict[str, float]:
    """The child's budget within what the parent has left; at least a little, so that the child can say what it lacked."""
    result = dict(child)
    for name, most in parent.items():
        left = max(most - used.get(name, 0), 0.001 if name == "wall_s" else 0)
        result[name] = min(result.get(name, left), left)
    return result
