# Leaves a file in the host's /dev/shm, where it is memory that belongs to nobody.
# severity: medium
# escape: ipc
from raw import A, refusable, tried

with refusable("/dev/shm"), open(f"/dev/shm/{A.marker}", "w") as file:
    file.write("left behind")
tried()
