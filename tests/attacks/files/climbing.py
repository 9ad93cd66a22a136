# Climbs out of the workspace by `..`, by descriptor and by working folder.
# severity: critical
# escape: secret
import os

from raw import A, refusable, steal, tried

steal("../" * 40 + A.canary.lstrip("/"))
with refusable("chdir"):
    os.chdir(A.around)
    steal("canary.txt")
with refusable("path descriptor"):
    folder = os.open(A.around, os.O_PATH)
    show = os.open("canary.txt", os.O_RDONLY, dir_fd=folder)
    print(os.read(show, 100))
with refusable("path descriptor through fd"):
    found = os.open(A.canary, os.O_PATH)
    steal(f"/proc/self/fd/{found}")
    steal(f"/dev/fd/{found}")
tried()
