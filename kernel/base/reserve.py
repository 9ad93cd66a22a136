"""User ids that belong to one sandbox at a time, machine-wide. Needed as root only: an ordinary user has one uid and keeps it.

A reservation is an abstract socket named after the uid: the first to bind the name has it, and the system gives it back when the
process that holds it ends, however it ends. Two kernels on one machine therefore never use the same uid at once, and killing all
processes of a reserved uid can only meet the sandbox that has it.

Guarantees
1. Never uid 0, nobody (65534), or an id that is not mapped in our own user namespace.
2. An id that is held is not given again, by this or any other kernel of the same network namespace.

Taken names are stepped over, so somebody who binds them all denies service, and gains nothing else.
"""

import socket
from collections.abc import Callable
from pathlib import Path

from .errors import Overloaded

__all__ = ["Reserved", "reserve_uid"]

PREFERRED_FIRST = 1_900_000_000
"""systemd's table of uids marks 1,879,048,192 to 2,147,352,575 as used by nobody: containers end below, foreign ids begin above."""
RANGE = 4096
NOBODY = 65534


class Reserved:
    """A uid (and gid) that is ours until `release`."""

    def __init__(self, uid: int, name: socket.socket) -> None:
        assert uid not in (0, NOBODY)
        self.uid = uid
        self._name = name

    def release(self) -> None:
        self._name.close()


def reserve_uid(entropy: Callable[[int], bytes]) -> Reserved:
    first = _first_of_range(Path("/proc/self/uid_map").read_text(encoding="ascii"))
    start = int.from_bytes(entropy(2), "big") % RANGE
    for step in range(RANGE):
        uid = first + (start + step) % RANGE
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            name.bind(f"\0agent-kernel-uid-{uid}")
        except OSError:
            name.close()
            continue
        return Reserved(uid, name)
    raise Overloaded(f"All {RANGE} user ids for sandboxes are taken. Try again when one has ended.", retry_after_s=1.0)


def _first_of_range(uid_map: str) -> int:
    """The start of RANGE ids that are mapped here: the preferred ones, else the highest of the largest mapped piece, below nobody."""
    pieces = [tuple(map(int, line.split())) for line in uid_map.splitlines()]
    if any(inside <= PREFERRED_FIRST and inside + count >= PREFERRED_FIRST + RANGE for inside, _, count in pieces):
        return PREFERRED_FIRST
    inside, _, count = max(pieces, key=lambda piece: piece[2])
    first = inside + count - RANGE
    if first <= NOBODY < inside + count:
        first = NOBODY - RANGE
    if first <= max(inside, 0):
        raise Overloaded(
            f"uid 0 of a user namespace with {count} ids has none to give to sandboxes. Run as an ordinary user.",
            retry_after_s=3600.0,
        )
    return first
