# Leaves a tree deeper than any recursion goes, with a file at its end.
# severity: medium
# escape: artefact, kernel, inodes
# stops: disk
# as: none a control that collects by recursion dies of it, and so would this corpus
import os

from raw import refusable, tried

with refusable("deep"):
    for _ in range(900):
        os.mkdir("d")
        os.chdir("d")
    open("end", "w").close()
tried()
