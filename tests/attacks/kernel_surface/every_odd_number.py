# Makes every call whose number is beyond those that ordinary programs know.
# severity: high
# escape: said
import errno

from raw import NUMBERS, call, escaped, tried

KNOWN = {434, 436, 439, 441, 449, 454, 455, 456, *(pair[0] for pair in NUMBERS.values())}
for number in range(425, 480):
    if number in KNOWN or number in (435, 447):
        continue
    try:
        call(number, -1, -1, -1, -1, -1, -1)
        escaped(f"call {number}")
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            escaped(f"call {number} is reached: {error}")
tried()
