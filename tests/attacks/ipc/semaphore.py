# Leaves a named POSIX semaphore on the host.
# severity: low
# escape: ipc
import ctypes
import os

from raw import A, libc, tried

libc.sem_open.restype = ctypes.c_void_p
print(libc.sem_open(f"/{A.marker}".encode(), os.O_CREAT, 0o666, 1))
tried()
