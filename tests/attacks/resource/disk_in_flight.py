# Keeps removed files alive in messages that nobody receives: neither a name, nor a descriptor, nor a mapping.
# severity: high
# escape: said
# stops: disk
# price: confined: removed files that lie in unreceived messages
import array
import os
import socket

from raw import escaped, hold_alone, refusable, tried

a, b = socket.socketpair()
written = 0
with refusable("write"):
    for _ in range(8):
        descriptor = os.open("f", os.O_RDWR | os.O_CREAT)
        os.unlink("f")
        for _ in range(14):
            written += os.write(descriptor, bytes(1 << 20))
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        os.close(descriptor)
hold_alone()
if written > 72 << 20:
    escaped(f"{written} bytes of removed files")
tried()
