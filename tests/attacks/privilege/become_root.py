# Becomes uid 0 by every call that sets ids.
# severity: critical
# escape: said
# as: root
import os

from raw import attempt, call, tried

attempt("setuid", lambda: os.setuid(0))
attempt("setresuid", lambda: call("setresuid", 0, 0, 0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("setgid", lambda: os.setgid(0))
tried()
