# Holds more memory than the limit in one process.
# severity: high
# escape: memory
# stops: memory
from raw import A, hold, tried

held = bytearray(b"x") * (int(A.memory_mb) * 3 << 19)
hold()
tried()
