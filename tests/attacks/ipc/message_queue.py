# Leaves a POSIX message queue on the host.
# severity: medium
# escape: ipc
# may lack: POSIX queues
import errno
import os

from raw import A, call, lacks, tried

try:
    print(call("mq_open", A.marker.encode(), os.O_CREAT | os.O_RDWR, 0o666, 0))
except OSError as error:
    print(error)
    if error.errno == errno.ENOSYS:
        lacks("POSIX queues")
tried()
