# Sends frames that only the kernel may send, or that belong to another's call: answers, starts, results.
# severity: high
# escape: wall
# timeout: 2
# stops: killed
import struct

from raw import frame, say, stay, tried

tried()
for kind in (1, 2, 3, 4, 5, 6, 7, 9, 11, 200, 255):
    say(frame(kind, struct.pack("<BdI", 0, 0.0, 0) + b'{"ok": 1}', 7))
stay(30)
