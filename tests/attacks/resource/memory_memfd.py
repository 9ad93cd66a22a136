# Holds memory in files without a name, which no figure of a process shows.
# severity: high
# escape: said
# stops: memory
from raw import A, call, escaped, hold_alone, refusable, tried

held = 0
with refusable("memfd"):
    import os

    memory = call("memfd_create", b"m", 0)
    while held < int(A.memory_mb) * 3 << 19:
        held += os.write(memory, bytes(1 << 20))
    hold_alone()
    escaped(f"{held} bytes in a memory file")
tried()
