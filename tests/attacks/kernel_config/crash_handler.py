# Sets its limit of core files so that a crash starts the program which core_pattern names: as root, on the host, reading what it left.
# severity: high
# escape: said
import resource

from raw import call, escaped, refusable, tried

with refusable("limit"):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with refusable("other pid argument"):
    import struct

    call("prlimit64", 1 << 32, 4 | 1 << 40, struct.pack("QQ", 0, 0), 0)
if resource.getrlimit(resource.RLIMIT_CORE)[0] != 1:
    escaped("only a limit of 1 keeps the handler away")
tried()
