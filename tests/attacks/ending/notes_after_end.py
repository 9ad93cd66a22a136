# Says that it has ended, and then floods the channel with more ends and notes.
# severity: high
# escape: survivor, output
from raw import END, NOTE, frame, say, tried

tried()
say(frame(END, b'{"exit_code": 0, "value": "first"}') + frame(END, b'{"exit_code": 0, "value": "second"}'))
while True:
    say(frame(NOTE, b'{"log": "' + b"x" * 50_000 + b'"}'))
