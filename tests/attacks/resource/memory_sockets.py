# Holds memory in the buffers of socket pairs, in several processes; no figure of a process shows it.
# severity: high
# escape: said
# stops: memory
import os
import socket

from raw import A, escaped, hold_alone, refusable, tried

SENT_MAX = 24 << 20
for _ in range(7):
    if os.fork() == 0:
        break
sent, held = 0, []
with refusable("socketpair"):
    while sent < SENT_MAX:
        pair = socket.socketpair()
        for end in pair:
            with refusable("buffer size"):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            end.setblocking(False)
            try:
                while True:
                    sent += end.send(bytes(65536))
            except BlockingIOError:
                held.append(pair)
hold_alone()
if sent * 8 > int(A.memory_mb) << 20:
    escaped(f"{sent} bytes in each of 8 processes")
tried()
