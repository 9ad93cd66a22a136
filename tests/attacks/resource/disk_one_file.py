# Writes one file without end.
# severity: medium
# escape: disk
# stops: files, disk
from raw import hold, refusable, tried

with refusable("write"), open("big", "wb") as file:
    for _ in range(90):
        file.write(bytes(1 << 20))
hold()
tried()
