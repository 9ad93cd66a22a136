# Writes garbage to the frame channel.
# severity: high
# escape: kernel
# stops: killed
import os

from raw import say, tried

tried()
say(b"\x08\0\0\0\x0a\0\0\0\0garbage!" + os.urandom(100_000))
