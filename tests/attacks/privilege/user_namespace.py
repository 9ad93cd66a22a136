# Makes a user namespace, where it would be root, by every call that can.
# severity: high
# escape: said
import os
import struct

from raw import attempt, call, escaped, refusable, tried

attempt("unshare", lambda: call("unshare", 0x10000000))
with refusable("clone"):
    if call("clone", 0x10000000 | 17, 0, 0, 0, 0) == 0:
        os._exit(0)
    escaped("clone")
with refusable("clone3"):
    if call("clone3", struct.pack("8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64) == 0:
        os._exit(0)
    escaped("clone3")
tried()
