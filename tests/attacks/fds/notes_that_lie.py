# Sends notes that are none: broken JSON, odd types, numbers that no JSON has, controls.
# severity: medium
# escape: terminal, kernel
# stops: killed
from raw import NOTE, frame, refusable, say, tried

with refusable("notes"):
    for payload in (
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"log": 1}',
        b'{"progress": 5}',
        b'{"progress": [1, 2, 3, 4]}',
        b'{"progress": [NaN, 1e999, []]}',
        b'{"log": "\\u001b]0;title\\u0007\\u202e"}',
        b"\xff",
        b"[" * 5000,
        b'{"log": "\x1b[2J\x07"}',
    ):
        say(frame(NOTE, payload))
tried()
