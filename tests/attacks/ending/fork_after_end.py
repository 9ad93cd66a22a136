# Says that it has ended, and then makes daemons as fast as it can.
# severity: critical
# escape: survivor
import os

from raw import end, refusable, stay, tried

tried()
end(exit_code=0)
for _ in range(30):
    with refusable("fork"):
        if os.fork() == 0:
            os.setsid()
            stay(60)
            os._exit(0)
stay(60)
