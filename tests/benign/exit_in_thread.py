# A thread that leaves does not end the program; exit functions run at the end.
# stdout: 'main goes on\nbye\n'
import atexit
import sys
import threading

atexit.register(print, "bye")
thread = threading.Thread(target=sys.exit, args=(3,))
thread.start()
thread.join()
print("main goes on")
