# Ends with a result as deep as no program can walk.
# severity: high
# escape: kernel
# stops: killed
from raw import END, frame, refusable, say, stay, tried

tried()
deep = b"[" * 900 + b"]" * 900
with refusable("deep"):
    say(frame(END, b'{"exit_code": 0, "error": {"message": ' + deep + b', "type": ' + deep + b"}}"))
    say(frame(END, b"[" * 200_000))
stay(3)
