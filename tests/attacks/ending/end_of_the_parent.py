# Its first process ends at once without a word, while its children compute on and hold everything.
# severity: high
# escape: survivor
import os

from raw import fork, tried


def compute():
    os.setsid()
    while True:
        pass


fork(compute)
tried()
os._exit(0)
