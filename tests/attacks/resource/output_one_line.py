# Prints one line without end.
# severity: medium
# escape: output
# stops: output
import os

from raw import tried

for _ in range(128):
    left = bytes(65536)
    while left:
        left = left[os.write(1, b"x" * len(left)) :]
tried()
