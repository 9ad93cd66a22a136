# Writes into the temporary folder instead of the workspace.
# severity: high
# escape: disk
# stops: disk
import tempfile

from raw import hold, refusable, tried

held = []
with refusable("write"):
    for _ in range(30):
        held.append(tempfile.NamedTemporaryFile())
        held[-1].write(bytes(4 << 20))
hold()
tried()
