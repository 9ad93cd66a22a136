# Closes the frame channel and goes on for ever.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
import os

from raw import stay

os.close(3)
stay(60)
