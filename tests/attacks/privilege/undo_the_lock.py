# Undoes what holds it: filters, limits, dumpable, death with its parent, the right to reap.
# severity: high
# escape: said
# as: root
import resource
import struct

from raw import attempt, call, tried

attempt("filter", lambda: call("seccomp", 2, 0, struct.pack("I", 0x7FFF0000)))
attempt("limits", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1 << 20, 1 << 20)))
attempt("dumpable", lambda: call("prctl", 4, 1, 0, 0, 0))
attempt("death signal", lambda: call("prctl", 1, 0, 0, 0, 0))
attempt("subreaper", lambda: call("prctl", 36, 1, 0, 0, 0))
attempt("speculation", lambda: call("prctl", 53, 0, 4, 0, 0))
attempt("traced by anybody", lambda: call("prctl", 0x59616D61, -1, 0, 0, 0))
tried()
