# Takes the host's huge pages, which count in no process's resident memory.
# severity: medium
# escape: said
# may lack: huge pages
import ctypes
import errno

from raw import escaped, lacks, libc, tried

libc.mmap.restype = ctypes.c_void_p
place = libc.mmap(None, ctypes.c_size_t(2 << 20), 3, 0x22 | 0x40000, -1, ctypes.c_long(0))
if place not in (None, ctypes.c_void_p(-1).value):
    escaped("a huge page")
elif ctypes.get_errno() == errno.ENOMEM:
    lacks("huge pages")
print("errno", ctypes.get_errno())
tried()
