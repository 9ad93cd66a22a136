# Runs a set-uid program of the host and is its owner.
# severity: critical
# escape: said
# as: own uid
import subprocess

from raw import A, escaped, refusable, tried

with refusable("run"):
    if subprocess.run([A.set_uid, "-u"], capture_output=True).stdout == b"0\n":
        escaped("a program with uid 0")
tried()
