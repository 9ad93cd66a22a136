# Generators, dataclasses, protocols, pattern matching, context managers, caches.
# stdout: "[0, 1, 1, 2, 3, 5, 8] Point(x=1, y=2) origin on the axis 55\n"
import functools
import itertools
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Point:
    x: int
    y: int


def numbers():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


@functools.cache
def number(n):
    return n if n < 2 else number(n - 1) + number(n - 2)


def where(point):
    match point:
        case Point(0, 0):
            return "origin"
        case Point(_, 0):
            return "on the axis"
    return "elsewhere"


print(list(itertools.islice(numbers(), 7)), Point(1, 2), where(Point(0, 0)), where(Point(3, 0)), number(10))
