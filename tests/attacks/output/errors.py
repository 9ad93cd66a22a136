# Raises an error whose type, message and lines move the cursor.
# severity: medium
# escape: terminal
import sys

from raw import tried

tried()
error = type("Bad\x1b[2J\x9b", (Exception,), {})
sys.stdout.flush()
raise error("\x1b]0;title\x07 \u202e\U000e0041" * 10)
