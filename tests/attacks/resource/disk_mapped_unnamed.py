# Keeps removed files alive by one mapped page each, without a name and without a descriptor.
# severity: high
# escape: disk, said
# stops: disk
import ctypes
import os

from raw import escaped, hold_alone, libc, refusable, tried

libc.mmap.restype = ctypes.c_void_p
written = 0
with refusable("write"):
    for _ in range(8):
        descriptor = os.open("f", os.O_RDWR | os.O_CREAT)
        for _ in range(14):
            written += os.write(descriptor, bytes(1 << 20))
        if libc.mmap(None, ctypes.c_size_t(4096), 1, 1, descriptor, ctypes.c_long(0)) == ctypes.c_void_p(-1).value:
            raise OSError("mmap")
        os.unlink("f")
        os.close(descriptor)
hold_alone()
if written > 72 << 20:
    escaped(f"{written} bytes of removed files")
tried()
