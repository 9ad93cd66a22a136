# Speaks to daemons of the host by abstract Unix sockets, which have no path and no mode.
# severity: critical
# escape: heard
import socket

from raw import A, refusable, tried

with refusable("stream"):
    socket.socket(socket.AF_UNIX).connect(f"\0{A.abstract}")
with refusable("packets"):
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(f"\0{A.abstract_seq}")
with refusable("datagram"):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"hello", f"\0{A.abstract_dgram}")
tried()
