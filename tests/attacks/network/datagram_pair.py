# Reaches third parties from a datagram socket pair, which passes for anonymous.
# severity: critical
# escape: heard
import socket

from raw import A, refusable, tried

for target in (f"\0{A.abstract_dgram}", A.unix_dgram):
    with refusable("sendto"):
        socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"hello", target)
    with refusable("connect"):
        one = socket.socketpair(type=socket.SOCK_DGRAM)[0]
        one.connect(target)
        one.send(b"hello")
    with refusable("type with flags"):
        one = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)[0]
        one.sendto(b"hello", target)
    with refusable("another channel"):
        socket.socket(fileno=3).sendto(b"hello", target)
tried()
