# Speaks to daemons of the host by Unix sockets in the file system.
# severity: critical
# escape: heard
import os
import socket

from raw import A, refusable, tried

with refusable("stream"):
    socket.socket(socket.AF_UNIX).connect(A.unix)
with refusable("datagram"):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"hello", A.unix_dgram)
with refusable("pair"):
    socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"hello", A.unix_dgram)
with refusable("through a link"):
    os.symlink(A.unix, "socket")
    socket.socket(socket.AF_UNIX).connect("socket")
tried()
