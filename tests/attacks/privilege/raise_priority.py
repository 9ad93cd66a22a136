# Raises its own priority above everybody's.
# severity: medium
# escape: said
# as: root
import os
import struct

from raw import attempt, call, tried

attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
attempt("deadline", lambda: call(314, 0, struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 1 << 20, 1 << 24, 1 << 24), 0))
attempt("disk", lambda: call("ioprio_set", 1, 0, 1 << 13))
tried()
