# Signals a process of the host by every call that can: thread, queue, pidfd, group.
# severity: high
# escape: victim
import os
import signal

from raw import A, libc, refusable, tried

victim = int(A.victim)
with refusable("pidfd"):
    signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGUSR1)
with refusable("tkill"):
    print(libc.syscall(200, victim, 12), libc.syscall(234, victim, victim, 12))
with refusable("queue"):
    print(libc.sigqueue(victim, 10, 0))
with refusable("group"):
    os.killpg(victim, signal.SIGUSR2)
tried()
