# Learns the host's name.
# severity: low
# escape: said
# price: confined: the host's name
import os
import platform
import socket

from raw import A, escaped, tried

names = {platform.node(), socket.gethostname(), os.uname().nodename}
print(names)
if names != {"sandbox"}:
    escaped("a name that is not the sandbox's own")
tried()
