# Ends with a result whose fields have other types, huge numbers and broken text.
# severity: medium
# escape: kernel
# stops: killed
from raw import END, frame, refusable, say, stay, tried

tried()
with refusable("odd"):
    say(frame(END, b'{"exit_code": 1e999, "value": ["\\ud800"], "error": "text"}'))
    say(frame(END, b'{"exit_code": ' + b"9" * 5000 + b"}"))
    say(frame(END, b"\xff\xfe"))
stay(3)
