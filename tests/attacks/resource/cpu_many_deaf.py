# Computes in many processes that ignore every signal they may, each in a session of its own.
# severity: medium
# escape: wall, survivor
# timeout: 1
# stops: timeout
import os
import signal

for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
while True:
    pass
