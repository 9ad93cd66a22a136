# Comes to its end with threads that never do.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
import threading

from raw import stay

threading.Thread(target=stay, args=(60,)).start()
