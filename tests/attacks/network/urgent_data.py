# Sends urgent data over a local socket pair: kernel code for nobody, which was a way into the kernel (CVE-2025-38236).
# severity: high
# escape: said
# may lack: urgent data
import errno
import socket

from raw import escaped, lacks, tried

a, b = socket.socketpair()
for send in (
    lambda: a.send(b"x", socket.MSG_OOB),
    lambda: a.sendmsg([b"x"], [], socket.MSG_OOB),
    lambda: a.send(b"x", socket.MSG_OOB | socket.MSG_DONTWAIT),
):
    try:
        send()
        escaped("urgent data")
    except OSError as error:
        print(error)
        if error.errno == errno.EOPNOTSUPP:
            lacks("urgent data")
tried()
