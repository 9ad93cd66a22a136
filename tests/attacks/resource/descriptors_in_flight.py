# Sends descriptors to itself and never receives them: they are open, and in no table of a process.
# severity: medium
# escape: said
import array
import os
import socket

from raw import escaped, hold, refusable, tried

sent = 0
for _ in range(6):
    if os.fork() == 0:
        break
    with refusable("send"):
        a, b = socket.socketpair()
        a.setblocking(False)
        for _ in range(100):
            a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 50))])
            sent += 50
hold(0.3)
if sent > 400:
    escaped(f"{sent} descriptors in flight")
tried()
