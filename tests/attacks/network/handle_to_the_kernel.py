# Asks its channel for a handle to the process at the other end (SO_PEERPIDFD).
# severity: medium
# escape: said
# may lack: SO_PEERPIDFD
import errno
import socket

from raw import escaped, lacks, tried

for option in (77, 77 | 1 << 32):
    try:
        print(socket.socket(fileno=3).getsockopt(socket.SOL_SOCKET, option))
        escaped("a pidfd of the kernel")
    except OverflowError:
        continue
    except OSError as error:
        print(error)
        if error.errno == errno.ENOPROTOOPT:
            lacks("SO_PEERPIDFD")
tried()
