# Asks for the kernel's log and for the addresses of its functions.
# severity: medium
# escape: said
# as: root
import os

from raw import attempt, call, tried

attempt("log size", lambda: call("syslog", 10, 0, 0))
attempt("symbols", lambda: open("/proc/kallsyms").read(10))
attempt("log device", lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY)))
tried()
