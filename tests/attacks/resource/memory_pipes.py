# Holds memory in pipes made as large as they go, in several processes.
# severity: medium
# escape: said
# memory: 32
# stops: memory
import fcntl
import os

from raw import A, escaped, hold_alone, refusable, tried

for _ in range(7):
    if os.fork() == 0:
        break
sent = 0
with refusable("pipes"):
    for _ in range(60):
        reading, writing = os.pipe()
        with refusable("size"):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(writing, False)
        try:
            while True:
                sent += os.write(writing, bytes(65536))
        except BlockingIOError:
            pass
hold_alone()
if sent * 8 > int(A.memory_mb) << 20:
    escaped(f"{sent} bytes in each of 8 processes")
tried()
