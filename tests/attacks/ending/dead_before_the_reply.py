# Says that it has ended and is killed in the same moment, by its own hand, with a child that holds the output.
# severity: high
# escape: survivor
import os
import signal

from raw import end, fork, stay, tried

fork(lambda: (os.setsid(), stay(60)))
tried()
end(exit_code=0)
os.kill(os.getpid(), signal.SIGKILL)
