# Asks whether a process of the host is there, by calls that answer differently when it is not.
# severity: low
# escape: said
# price: confined: process numbers
import os
import time

from raw import A, attempt, tried

victim = int(A.victim)
attempt("group", lambda: os.getpgid(victim))
attempt("session", lambda: os.getsid(victim))
attempt("priority", lambda: os.getpriority(os.PRIO_PROCESS, victim))
attempt("processors", lambda: os.sched_getaffinity(victim))
attempt("pidfd", lambda: os.pidfd_open(victim))
attempt("its clock", lambda: time.clock_gettime(~victim << 3 | 2))
tried()
