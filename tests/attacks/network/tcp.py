# Connects to a listener of the host by TCP.
# severity: critical
# escape: heard
import socket

from raw import A, refusable, tried

for family, host, port in ((socket.AF_INET, "127.0.0.1", A.tcp), (socket.AF_INET6, "::1", A.tcp6)):
    with refusable(host), socket.socket(family) as one:
        one.settimeout(2)
        one.connect((host, int(port)))
        one.send(b"hello")
tried()
