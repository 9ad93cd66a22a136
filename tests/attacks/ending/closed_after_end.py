# Says that it has ended, closes everything, and computes on.
# severity: high
# escape: survivor
import os

from raw import end, tried

tried()
end(exit_code=0)
os.closerange(0, 256)
while True:
    pass
