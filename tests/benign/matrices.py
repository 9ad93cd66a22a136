# Multiplies matrices, finds primes, sorts, searches: plain computing.
# stdout: '[[19, 22], [43, 50]] 1229 [1, 2, 3] 2\n'
import bisect
import heapq

a, b = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
product = [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]
sieve = bytearray([1]) * 10_000
for n in range(2, 100):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(sieve[n * n :: n]))
heap = [3, 1, 2]
heapq.heapify(heap)
print(product, sum(sieve) - 2, [heapq.heappop(heap) for _ in range(3)], bisect.bisect([1, 2, 3], 2))
