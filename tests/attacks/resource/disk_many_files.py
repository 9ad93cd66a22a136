# Writes many files, each of a size that is allowed.
# severity: high
# escape: disk
# stops: disk
from raw import hold, refusable, tried

with refusable("write"):
    for number in range(30):
        with open(f"f{number}", "wb") as file:
            file.write(bytes(4 << 20))
hold()
tried()
