# Reads a shared folder and tries to write, rename, remove and replace what lies there.
# severity: high
# escape: changed
# share: yes
# as: root
import os

from raw import A, refusable, tried

with refusable("write"), open(f"{A.shared_dir}/data.txt", "a") as file:
    file.write("!")
with refusable("plant"), open(f"{A.shared_dir}/planted", "w") as file:
    file.write("!")
with refusable("chmod"):
    os.chmod(f"{A.shared_dir}/data.txt", 0o600)
with refusable("times"):
    os.utime(f"{A.shared_dir}/data.txt", (1, 1))
with refusable("mapped"):
    import mmap

    file = os.open(f"{A.shared_dir}/data.txt", os.O_RDONLY)
    mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[0] = 33
tried()
