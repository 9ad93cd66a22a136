# Prints bytes that are no text, with NULs and cut sequences.
# severity: low
# escape: terminal
import os

from raw import tried

os.write(1, bytes(range(256)) + b"\xf0\x9f\x98\n\0\0\0" + b"\xed\xa0\x80\xc0\xaf\n")
tried()
