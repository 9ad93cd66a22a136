# Changes the times of a file of the host that everybody may write; that needs no opening.
# severity: low
# escape: changed
import os

from raw import A, refusable, tried

for path in (A.open_file, A.open_dir):
    with refusable("utime"):
        os.utime(path)
with refusable("through a link"):
    os.symlink(A.open_file, "t")
    os.utime("t")
tried()
