# Prints every control character: they move cursors, set titles, answer questions that a terminal asks.
# severity: medium
# escape: terminal
import sys

from raw import tried

sys.stdout.write("".join(map(chr, (*range(32), *range(127, 160)))))
sys.stdout.write("\x1b]0;title\x07\x1b[2J\x1b[5n\x9b2J\x1bP$q\x1b\\")
sys.stderr.write("\x1b]52;c;ZWNobw==\x07")
print()
tried()
