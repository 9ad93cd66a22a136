# Plants files of every kind in a folder of the host that everybody may write.
# severity: high
# escape: changed
import os

from raw import A, refusable, tried

with refusable("file"), open(f"{A.open_dir}/file", "w") as file:
    file.write("planted")
with refusable("folder"):
    os.mkdir(f"{A.open_dir}/folder")
    os.rmdir(f"{A.open_dir}/folder")
with refusable("link"):
    os.symlink("/", f"{A.open_dir}/link")
with refusable("fifo"):
    os.mkfifo(f"{A.open_dir}/fifo")
with refusable("nameless"):
    nameless = os.open(A.open_dir, os.O_TMPFILE | os.O_WRONLY)
    os.link(f"/proc/self/fd/{nameless}", f"{A.open_dir}/nameless", follow_symlinks=True)
with refusable("rename"):
    open("mine", "w").close()
    os.rename("mine", f"{A.open_dir}/mine")
tried()
