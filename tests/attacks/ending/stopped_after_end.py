# Says that it has ended, and then stops itself, deaf to everything but SIGKILL.
# severity: high
# escape: survivor
import os
import signal

from raw import end, tried

tried()
end(exit_code=0)
os.kill(os.getpid(), signal.SIGSTOP)
