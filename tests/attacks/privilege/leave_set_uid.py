# Leaves set-uid and set-gid files in its workspace, made by every call that takes a mode.
# severity: critical
# escape: setuid
import ctypes
import os
import shutil
import stat
import struct

from raw import call, libc, refusable, stay, tried

shutil.copyfile("/usr/bin/env", "program")
with refusable("chmod"):
    os.chmod("program", 0o4755)
with refusable("fchmod"):
    os.fchmod(os.open("a", os.O_CREAT | os.O_WRONLY), 0o2755)
with refusable("fchmodat2"):
    open("b", "w").close()
    call("fchmodat2", -100, b"b", 0o6755, 0)
with refusable("open"):
    os.open("c", os.O_CREAT | os.O_WRONLY, 0o4777)
with refusable("openat2"):
    call("openat2", -100, b"d", struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, 0o4755, 0), 24)
with refusable("creat"):
    libc.creat(b"e", 0o6755)
with refusable("mknod"):
    os.mknod("f", stat.S_IFREG | 0o6755)
with refusable("nameless"):
    nameless = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755)
    os.link(f"/proc/self/fd/{nameless}", "g", follow_symlinks=True)
with refusable("inherited by a folder"):
    os.mkdir("h")
    os.chmod("h", 0o2777)
    os.mkdir("h/i")
with refusable("by a mode with high bits"):
    libc.syscall(90, b"program", ctypes.c_long(0x100000000 | 0o4755))
stay(0.6)
tried()
