# Writes to a file of the host that everybody may write.
# severity: critical
# escape: changed
import os

from raw import A, refusable, tried

with refusable("write"), open(A.open_file, "a") as file:
    file.write("written by the program")
with refusable("truncate"):
    os.truncate(A.open_file, 1)
with refusable("through a link"):
    os.symlink(A.open_file, "w")
    with open("w", "a") as file:
        file.write("more")
tried()
