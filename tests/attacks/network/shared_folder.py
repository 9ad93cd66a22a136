# Speaks to a daemon of the host whose socket lies in a shared folder: a read-only mount does not stop connect().
# severity: critical
# escape: heard
# share: yes
import socket

from raw import A, refusable, tried

with refusable("stream"):
    socket.socket(socket.AF_UNIX).connect(f"{A.shared_dir}/stream")
with refusable("datagram"):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"hello", f"{A.shared_dir}/dgram")
with refusable("pair"):
    socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"hello", f"{A.shared_dir}/dgram")
tried()
