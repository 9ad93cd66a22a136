# Types into a terminal by ioctl, also with bits above the 32 that the kernel looks at (CVE-2019-10063).
# severity: high
# escape: said
from raw import reaches, tried

for request in (0x5412, 0x541C, 0x540E, 0x5423, 0x4B4E, 0x100005412, 0x10000541C, -0xFFFFABEE):
    reaches("ioctl", 0, request, b"x")
tried()
