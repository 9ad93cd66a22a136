# Has capabilities, or gives itself some.
# severity: critical
# escape: said
# as: root
import ctypes
import struct

from raw import attempt, call, escaped, libc, refusable, tried

with refusable("capget"):
    data = ctypes.create_string_buffer(24)
    if libc.capget(struct.pack("Ii", 0x20080522, 0), data) == 0 and any(struct.unpack("6I", data.raw)[:2]):
        escaped("it has capabilities")
attempt("capset", lambda: call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[1 << 21] * 6)))
attempt("ambient", lambda: call("prctl", 47, 2, 21, 0, 0))
attempt("keep", lambda: call("prctl", 8, 1, 0, 0, 0))
tried()
