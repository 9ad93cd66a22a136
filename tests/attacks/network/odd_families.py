# Opens sockets of every family but local and internet ones: rarely used kernel code, loaded on request.
# severity: high
# escape: said
import socket

from raw import escaped, tried

for family in range(3, 48):
    for kind in (1, 2, 3, 5):
        if family != 10:
            try:
                socket.socket(family, kind).close()
                escaped(f"family {family} type {kind}")
            except OSError:
                pass
tried()
