# Holds shared anonymous memory in many processes, each so little that it passes for file pages of libraries.
# severity: high
# escape: memory
# memory: 512
# stops: memory
import mmap
import os

from raw import fork, hold, tried

SHARE = 14 << 20


def child():
    held = mmap.mmap(-1, SHARE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    hold()
    held.close()


for _ in range(46):
    fork(child)
hold()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
tried()
