# Leaves a process behind that is traced by another, in a state of its own.
# severity: high
# escape: survivor
import os

from raw import call, fork, refusable, stay, tried


def traced():
    with refusable("traceme"):
        call("ptrace", 0, 0, 0, 0)
    stay(60)


fork(lambda: (fork(traced), stay(60)))
tried()
