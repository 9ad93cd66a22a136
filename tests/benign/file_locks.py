# Locks files as databases do.
# stdout: 'locked free\n'
# files: lock
import fcntl
import os

with open("lock", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:
        try:
            with open("lock", "a") as other:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os._exit(0)
        except OSError:
            os._exit(1)
    held = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    fcntl.lockf(file, fcntl.LOCK_UN)
with open("lock") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("locked" if held else "open", "free")
