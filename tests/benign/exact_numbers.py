# Decimals, fractions, big integers and statistics.
# stdout: '0.30 1/3 158 2.5 3.1622776602\n'
# value: '3628800'
import math
from decimal import Decimal
from fractions import Fraction
from statistics import median

print(
    Decimal("0.10") + Decimal("0.20"),
    Fraction(2, 6),
    len(str(math.factorial(100))),
    median([1, 2, 3, 4]),
    f"{math.sqrt(10):.10f}",
)
math.factorial(10)
