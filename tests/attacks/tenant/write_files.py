# Removes and rewrites another tenant's files.
# severity: critical
# escape: neighbour
# neighbour: yes
import os

from raw import A, refusable, stay, tried

for place in (A.neighbour_cwd, A.neighbour_tmp, "/dev/shm"):
    with refusable("unlink"):
        os.unlink(f"{place}/neighbour-{A.marker}")
    with refusable("plant"), open(f"{place}/planted", "w") as file:
        file.write("!")
stay(1.3)
tried()
