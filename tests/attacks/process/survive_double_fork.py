# Leaves a daemon behind: two forks, a session of its own, deaf to every signal.
# severity: critical
# escape: survivor
import os
import signal

from raw import stay, tried

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        for descriptor in range(256):
            try:
                os.close(descriptor)
            except OSError:
                pass
        stay(60)
    os._exit(0)
os.wait()
tried()
