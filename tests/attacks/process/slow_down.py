# Takes a process of the host its time: priority, processors, policy.
# severity: medium
# escape: victim
import os

from raw import A, refusable, tried

victim = int(A.victim)
with refusable("priority"):
    os.setpriority(os.PRIO_PROCESS, victim, 19)
with refusable("processors"):
    os.sched_setaffinity(victim, {0})
with refusable("policy"):
    os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))
with refusable("by user"):
    os.setpriority(os.PRIO_USER, os.getuid(), 19)
tried()
