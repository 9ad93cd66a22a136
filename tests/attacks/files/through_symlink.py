# Reads a file of the host through a link in the workspace.
# severity: critical
# escape: secret
import os

from raw import A, refusable, steal, tried

with refusable("link"):
    os.symlink(A.canary, "link")
    steal("link")
    os.symlink(A.around, "folder")
    steal("folder/canary.txt")
tried()
