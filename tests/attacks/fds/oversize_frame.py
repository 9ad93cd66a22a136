# Announces a frame of four gigabytes.
# severity: high
# escape: kernel
# stops: killed
from raw import say, stay, tried

tried()
say(b"\xff\xff\xff\xff\x0a\0\0\0\0")
stay(5)
