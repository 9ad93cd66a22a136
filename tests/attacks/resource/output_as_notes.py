# Floods the frame channel with notes.
# severity: medium
# escape: output
# stops: output, killed
import json

from raw import NOTE, frame, refusable, say, tried

with refusable("notes"):
    for number in range(100):
        say(frame(NOTE, json.dumps({"log": "x" * 100_000}).encode(), number))
tried()
