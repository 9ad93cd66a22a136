# Writes into the memory of a process of the host.
# severity: critical
# escape: victim
import ctypes
import os
import struct

from raw import A, call, refusable, tried

with refusable("process_vm_writev"):
    room = ctypes.create_string_buffer(b"!!!!")
    ours = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), 4))
    theirs = ctypes.create_string_buffer(struct.pack("QQ", int(A.victim_address), 4))
    call("process_vm_writev", int(A.victim), ours, 1, theirs, 1, 0)
with refusable("mem"):
    os.pwrite(os.open(f"/proc/{A.victim}/mem", os.O_WRONLY), b"!!", int(A.victim_address))
tried()
