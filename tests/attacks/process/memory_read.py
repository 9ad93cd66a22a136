# Reads the memory of a process of the host, by call and by file.
# severity: critical
# escape: secret
import ctypes
import os
import struct

from raw import A, call, refusable, show, tried

with refusable("process_vm_readv"):
    room = ctypes.create_string_buffer(64)
    ours = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), 40))
    theirs = ctypes.create_string_buffer(struct.pack("QQ", int(A.victim_address), 31))
    call("process_vm_readv", int(A.victim), ours, 1, theirs, 1, 0)
    show(room.raw)
with refusable("mem"):
    show(os.pread(os.open(f"/proc/{A.victim}/mem", os.O_RDONLY), 31, int(A.victim_address)))
tried()
