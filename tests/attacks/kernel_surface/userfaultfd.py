# Handles its own page faults, which makes races in the kernel easy to win.
# severity: high
# escape: said
# may lack: userfaultfd
import errno

from raw import call, escaped, lacks, tried

try:
    call("userfaultfd", 1)
    escaped("userfaultfd")
except OSError as error:
    print(error)
    if error.errno == errno.ENOSYS:
        lacks("userfaultfd")
tried()
