# Says that it has ended, and then prints for ever.
# severity: high
# escape: survivor, output
import os

from raw import end, tried

tried()
end(exit_code=0, value="done")
while True:
    os.write(1, b"x" * 65536)
