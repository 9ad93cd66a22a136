# Changes mode, owner and attributes of files of the host.
# severity: high
# escape: changed
# as: root
import os

from raw import A, refusable, tried

for path in (A.canary, A.open_file, A.private, A.open_dir):
    with refusable("chmod"):
        os.chmod(path, 0o640)
    with refusable("chown"):
        os.chown(path, os.getuid() + 1, -1)
    with refusable("utime"):
        os.utime(path, (1, 1))
    with refusable("attribute"):
        os.setxattr(path, "user.planted", b"1")
    with refusable("through a descriptor"):
        os.fchmod(os.open(path, os.O_PATH), 0o640)
    with refusable("through /proc"):
        os.chmod(f"/proc/self/fd/{os.open(path, os.O_PATH)}", 0o640)
tried()
