# Opens internet sockets of odd protocols: MPTCP, SCTP, DCCP, SMC, UDP-Lite, L2TP, ping. Asking for one may load a module.
# severity: high
# escape: said
# may lack: odd protocols
import socket

from raw import escaped, lacks, tried

opened = 0
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (1, 2, 4, 5, 6, 10):
        for protocol in (1, 2, 33, 47, 50, 58, 115, 132, 136, 255, 256, 262):
            try:
                socket.socket(family, kind, protocol).close()
                escaped(f"protocol {protocol} type {kind}")
                opened += 1
            except OSError:
                pass
if not opened:
    lacks("odd protocols")
tried()
