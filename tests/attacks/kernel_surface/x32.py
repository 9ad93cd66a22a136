# Calls the kernel by the x32 numbers, which have a bit of their own.
# severity: critical
# escape: said
# may lack: x32
# dies: 159
import errno

from raw import X86, call, escaped, lacks, tried

try:
    call(0x40000000 | 39 if X86 else 0x40000000)
    escaped("x32")
except OSError as error:
    print(error)
    if error.errno == errno.ENOSYS:
        lacks("x32")
tried()
