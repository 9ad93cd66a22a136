# Keeps so many descriptors in messages that nobody receives that others of its user may send none.
# severity: high
# escape: said
# stops: memory
import array
import os
import socket

from raw import escaped, hold, refusable, tried

for _ in range(8):
    if os.fork() == 0:
        break
sent, pairs = 0, []
for _ in range(40):
    with refusable("send"):
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        pairs[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
        sent += 250
if sent > 1000:
    escaped(f"{sent} descriptors in flight")
hold(1.0)
tried()
