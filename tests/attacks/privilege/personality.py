# Switches address randomisation off, or maps what it reads executable.
# severity: low
# escape: said
from raw import attempt, call, tried

attempt("no randomisation", lambda: call("personality", 0x0040000))
attempt("read implies execute", lambda: call("personality", 0x0400000))
attempt("high bits", lambda: call("personality", 0x100040000))
tried()
