# Reads another tenant's workspace, temporary folder and shared memory.
# severity: critical
# escape: secret
# neighbour: yes
import os

from raw import A, refusable, steal, tried

for place in (
    A.neighbour_cwd,
    A.neighbour_tmp,
    "/dev/shm",
    "/tmp",
    f"/proc/{A.neighbour}/cwd",
    f"/proc/{A.neighbour}/root/workspace",
):
    steal(f"{place}/neighbour-{A.marker}")
    with refusable("list"):
        print(os.listdir(place)[:3])
tried()
