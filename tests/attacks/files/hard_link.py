# Links a file of the host into the workspace and reads it there.
# severity: critical
# escape: secret, changed
# as: root
import os

from raw import A, refusable, steal, tried

with refusable("link"):
    os.link(A.canary, "mine")
steal("mine")
tried()
