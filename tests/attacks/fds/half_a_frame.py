# Sends half a frame and then nothing, for ever.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
from raw import END, frame, say, stay

say(frame(END, b'{"exit_code": 0, "value": "' + b"x" * 1000)[:500])
stay(60)
