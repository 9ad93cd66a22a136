# Ends with errors and notes that pass for the kernel's own words, with everything in them that is not text.
# severity: low
# escape: terminal
import json

from raw import END, NOTE, frame, refusable, say, stay, tried

tried()
with refusable("words"):
    say(
        frame(
            NOTE,
            json.dumps(
                {"log": "sandbox.unavailable: \x1b[31m\u202e", "progress": [1, 2, "\x9b"]}, ensure_ascii=False
            ).encode(),
        )
    )
    say(
        frame(
            END,
            json.dumps(
                {
                    "exit_code": 0,
                    "value": "\x1b[2J\u200b",
                    "error": {"type": "\x07", "message": "\x1b", "traceback": "\x9b\U000e0042"},
                },
                ensure_ascii=False,
            ).encode(),
        )
    )
stay(5)
