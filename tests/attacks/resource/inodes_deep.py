# Makes folders in folders, deeper than any path can say and than any recursion goes.
# severity: medium
# escape: inodes
# stops: disk
import os

from raw import hold, refusable, tried

with refusable("mkdir"):
    for _ in range(3000):
        open("f", "w").close()
        os.mkdir("d")
        os.chdir("d")
hold()
tried()
