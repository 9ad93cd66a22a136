# Makes threads as fast as it can.
# severity: high
# escape: tasks
# stops: processes
import threading

from raw import hold, refusable, stay, tried

threading.stack_size(65536)
for _ in range(150):
    with refusable("thread"):
        threading.Thread(target=stay, args=(15,), daemon=True).start()
hold()
tried()
