# Names a process of the host the owner of a descriptor, so that the kernel signals it.
# severity: medium
# escape: victim
import fcntl
import os
import socket

from raw import A, refusable, tried

with refusable("owner"):
    a, b = socket.socketpair()
    fcntl.fcntl(a, fcntl.F_SETOWN, int(A.victim))
    fcntl.fcntl(a, fcntl.F_SETFL, fcntl.fcntl(a, fcntl.F_GETFL) | os.O_ASYNC)
    b.send(b"x")
with refusable("owner by ioctl"):
    import struct

    a, b = socket.socketpair()
    fcntl.ioctl(a, 0x8901, struct.pack("i", int(A.victim)))
    fcntl.ioctl(a, 0x5452, struct.pack("i", 1))
    b.send(b"x")
tried()
