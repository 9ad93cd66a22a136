# Loads a program into the kernel.
# severity: critical
# escape: said
# as: root
import ctypes
import struct

from raw import attempt, call, tried

code = ctypes.create_string_buffer(bytes.fromhex("b7000000000000009500000000000000"))
licence = ctypes.create_string_buffer(b"GPL")
request = struct.pack("IIQQIIQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0)
attempt("map", lambda: call("bpf", 0, struct.pack("IIIII", 2, 4, 4, 1, 0), 20))
attempt("program", lambda: call("bpf", 5, request, len(request)))
tried()
