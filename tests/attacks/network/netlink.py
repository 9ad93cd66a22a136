# Asks the kernel by netlink: routes, sockets, audit, crypto, events.
# severity: medium
# escape: said
import socket

from raw import attempt, tried

for protocol in (0, 4, 9, 10, 12, 15, 16, 21):
    attempt(
        f"netlink {protocol}", lambda protocol=protocol: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    )
tried()
