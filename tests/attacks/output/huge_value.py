# Ends with a value whose text is larger than the kernel's memory should be.
# severity: medium
# escape: output
import os
import sys

from raw import END, frame, refusable, say, stay, tried

tried()
with refusable("value"):
    say(frame(END, b'{"exit_code": 0, "value": "' + b"x" * 3_900_000 + b'", "error": {"message": "y"}}'))
stay(5)
