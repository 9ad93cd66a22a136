"""The standard descriptors of a server process, and the process that started it.

Guarantees
1. stdout carries protocol only: after `claim` descriptor 1 is stderr and descriptor 0 is /dev/null, for us and for every child, so
   nothing that prints can tear a message. `claim` comes before any import that could print; this file imports the standard library.
2. A server does not outlive its host: `watch_parent` tells when the process that started it is gone, also when some other child of
   that host keeps our input open.

Nothing is written, so there is nothing to lose when the process dies.
"""

import asyncio
import os
from collections.abc import Callable

from agent_kernel.base import system

__all__ = ["claim", "watch_parent"]


def claim() -> tuple[int, int]:
    """Take the wire off the standard descriptors; returns the private ones (input, output), which no child inherits."""
    source, sink = system.duplicate(0), system.duplicate(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # started without a stderr
        os.dup2(null, 1)
        os.dup2(null, 2)
    os.close(null)
    return source, sink


def watch_parent(parent: int, gone: Callable[[], None]) -> Callable[[], None]:
    """Call `gone` when process `parent` ends; returns what stops the watch.

    By pidfd and not by PR_SET_PDEATHSIG, which fires when the *thread* that started us ends: hosts start servers from pools.
    """
    loop = asyncio.get_running_loop()
    try:
        fd = system.pidfd(parent)
    except (
        OSError
    ):  # it is gone already; or there are no pidfds (before Linux 5.3, elsewhere), and only the end of input tells
        if os.getppid() != parent:
            loop.call_soon(gone)
        return lambda: None
    if os.getppid() != parent:
        loop.call_soon(gone)

    def stop() -> None:
        nonlocal fd
        if fd >= 0:
            loop.remove_reader(fd)
            os.close(fd)
            fd = -1

    def ended() -> None:
        stop()
        gone()

    loop.add_reader(fd, ended)
    return stop
