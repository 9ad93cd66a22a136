# Fills /dev/shm, which is the host's memory.
# severity: high
# escape: ipc, memory
# stops: disk, files
from raw import A, hold, refusable, tried

with refusable("/dev/shm"), open(f"/dev/shm/{A.marker}", "wb") as file:
    for _ in range(int(A.memory_mb)):
        file.write(bytes(1 << 20))
    hold(0.5)
tried()
