# Leaves a second name of a file of the host, made where it may.
# severity: critical
# escape: secret
# as: root
import os

from raw import A, refusable, tried

with refusable("link"):
    os.link(A.private, "result.txt")
tried()
