# Splits its memory into tens of thousands of mappings in many processes: kernel memory that is in no figure of a process.
# severity: high
# escape: said
# stops: memory
import ctypes
import os

from raw import A, escaped, fork, hold, libc, tried

# To count so many mappings takes a watchdog seconds, and longer on a busy machine.
HELD_S = 2.5 if A.way == "control" else 30.0
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PIECES = 30_000
place = libc.mmap(None, ctypes.c_size_t(PIECES * 8192), 1, 0x22, -1, ctypes.c_long(0))
split = sum(libc.mprotect(place + number * 8192, 4096, 0) == 0 for number in range(PIECES))
made = 0
for _ in range(30):
    try:
        fork(lambda: hold(HELD_S))
        made += 1
    except OSError as error:
        print(error)
hold(HELD_S)
if split * made > 400_000:
    escaped(f"{split * 2} mappings in each of {made} processes")
tried()
