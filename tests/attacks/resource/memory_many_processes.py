# Holds more memory than the limit in processes that are each far below it.
# severity: high
# escape: memory
# stops: memory
import os

from raw import A, fork, hold, tried

SHARE = 12


def child():
    held = bytearray(b"x") * (SHARE << 20)
    hold()
    del held


for _ in range(int(A.memory_mb) * 2 // SHARE):
    fork(child)
hold()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
tried()
