"""Numbers as a person reads them: a duration with three digits and a unit, a ratio with as many digits as mean something."""

import math

__all__ = ["duration", "times"]


def duration(micros: float | None) -> str:
    if micros is None:
        return "-"
    if math.isnan(micros):
        return "failed"
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if micros >= size:
            value = micros / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{micros * 1000:.0f} ns"


def times(value: float | None) -> str:
    """Small ones as a fraction: a fortieth is read more easily than 0.0250."""
    if value is None:
        return "-"
    if value < 0.1:
        share = 1 / value if value > 0 else math.inf
        return f"1/{share:.0f}" if share < 10_000 else f"1/{share / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
