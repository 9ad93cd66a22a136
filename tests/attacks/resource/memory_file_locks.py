# Locks single bytes of files, each lock a piece of kernel memory that nothing limits.
# severity: high
# escape: said
# memory: 40
# stops: memory
import fcntl

from raw import A, escaped, hold_alone, refusable, tried

LOCK_BYTES = 216
count, kept = 0, []
with refusable("lock"):
    while count * LOCK_BYTES < int(A.memory_mb) << 20:
        kept.append(open(f"f{len(kept)}", "w"))
        for offset in range(0, 3000, 2):
            fcntl.lockf(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            count += 1
hold_alone()
if count * LOCK_BYTES >= int(A.memory_mb) << 20:
    escaped(f"{count} locks")
tried()
