# Sends descriptors into the frame channel, to fill the kernel's table or give it a trap to read.
# severity: high
# escape: kernel, wall
# timeout: 2
# stops: timeout, killed
import array
import os
import socket

from raw import NOTE, frame, refusable, stay, tried

channel = socket.socket(fileno=3)
channel.settimeout(1)
sent = 0
with refusable("descriptors"):
    for _ in range(100):
        channel.sendmsg(
            [frame(NOTE, b'{"log": "x"}')], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 60))]
        )
        sent += 60
print(sent)
tried()
channel.detach()
stay(20)
