# Opens AF_ALG: kernel code that nobody here needs (CVE-2026-31431).
# severity: high
# escape: said
# may lack: AF_ALG
import errno
import socket

from raw import escaped, lacks, tried

try:
    socket.socket(38, socket.SOCK_SEQPACKET)
    escaped("AF_ALG")
except OSError as error:
    print(error)
    if error.errno == errno.EAFNOSUPPORT:
        lacks("AF_ALG")
tried()
