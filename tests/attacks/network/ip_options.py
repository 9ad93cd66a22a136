# Sets options of internet sockets that ordinary programs do not know: flow labels, routing headers, encapsulation, segmentation.
# severity: medium
# escape: said
import errno
import socket
import struct

from raw import escaped, refusable, tried

with refusable("sockets"):
    sockets = {
        0: socket.socket(type=socket.SOCK_DGRAM),
        41: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        17: socket.socket(type=socket.SOCK_DGRAM),
    }
    for level, options in {
        0: (4, 16, 40, 41, 42, 46, 47, 48),
        41: (1, 6, 32, 33, 42, 46, 48, 54, 57, 59),
        17: (100, 101, 103, 104),
    }.items():
        for option in options:
            try:
                sockets[level].setsockopt(level, option, struct.pack("i", 1) + bytes(60))
                escaped(f"option {option} of level {level}")
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOSYS):
                    escaped(f"option {option} of level {level} is reached: {error}")
tried()
