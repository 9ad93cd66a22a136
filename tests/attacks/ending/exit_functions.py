# Has exit functions that never return and a last word of every object.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
import atexit

from raw import stay

atexit.register(stay, 60)
