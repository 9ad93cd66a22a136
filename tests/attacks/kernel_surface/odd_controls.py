# Commands devices, descriptors and itself by calls with many faces: ioctl, fcntl, prctl.
# severity: medium
# escape: said
import os

from raw import call, reaches, tried

for request in (0x8901, 0x8902, 0x5452, 0xC020660B, 0x40086602, 0xC0185879, 0x8912, 0xFF, 0xB701):
    reaches("ioctl", os.open(".", os.O_RDONLY), request, bytes(64))
for command in (8, 10, 15, 1024, 1026, 1031, 1039):
    reaches(72, os.open("a", os.O_RDWR | os.O_CREAT), command, 0)
for option in (1, 4, 8, 22, 24, 28, 33, 35, 41, 43, 53, 59, 62, 65, 67, 0x59616D61):
    reaches("prctl", option, 0, 0, 0, 0)
tried()
