# Counts events of the machine.
# severity: high
# escape: said
# as: root
# may lack: perf
import errno
import struct

from raw import call, escaped, lacks, tried

try:
    call("perf_event_open", struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0) + bytes(64), 0, -1, -1, 0)
    escaped("perf")
except OSError as error:
    print(error)
    if error.errno in (errno.ENOENT, errno.ENOSYS, errno.EOPNOTSUPP):
        lacks("perf")
tried()
