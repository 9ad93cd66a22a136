# Makes empty files without end.
# severity: medium
# escape: inodes
# stops: disk
from raw import hold, refusable, tried

with refusable("create"):
    for number in range(3000):
        open(f"f{number}", "w").close()
hold()
tried()
