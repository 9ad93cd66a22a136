# Is killed by its own child, which then says that it has ended.
# severity: medium
# escape: survivor
import os
import signal

from raw import end, fork, stay, tried

parent = os.getpid()


def child():
    os.setsid()
    os.kill(parent, signal.SIGKILL)
    end(exit_code=0, value="I am the guest now")
    stay(60)


tried()
fork(child)
stay(60)
