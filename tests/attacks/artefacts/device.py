# Leaves a device of the name of an output, which gives zeros for ever.
# severity: high
# escape: artefact
# as: root
import os
import stat

from raw import refusable, tried

with refusable("device"):
    os.mknod("result.bin", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
tried()
