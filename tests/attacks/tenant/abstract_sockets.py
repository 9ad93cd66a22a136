# Speaks to another tenant's abstract sockets.
# severity: high
# escape: neighbour
# neighbour: yes
import socket

from raw import A, refusable, stay, tried

with refusable("stream"):
    socket.socket(socket.AF_UNIX).connect(f"\0neighbour-1-{A.marker}")
with refusable("datagram"):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"hello", f"\0neighbour-2-{A.marker}")
with refusable("pair"):
    socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"hello", f"\0neighbour-2-{A.marker}")
stay(0.3)
tried()
