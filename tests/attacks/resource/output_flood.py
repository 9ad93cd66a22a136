# Prints without end.
# severity: medium
# escape: output
# stops: output
from raw import tried

for _ in range(8 << 10):
    print("x" * 1023)
tried()
