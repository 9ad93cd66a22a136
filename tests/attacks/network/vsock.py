# Opens a socket to the machine that runs this one.
# severity: high
# escape: said
# may lack: AF_VSOCK
import errno
import socket

from raw import escaped, lacks, tried

try:
    socket.socket(40, socket.SOCK_STREAM)
    escaped("AF_VSOCK")
except OSError as error:
    print(error)
    if error.errno == errno.EAFNOSUPPORT:
        lacks("AF_VSOCK")
tried()
