"""The numbers of lines on a connection that a bridge keeps (hello.py): which request has which, and what belongs to an older kernel.

Guarantees
1. Every numbered line is answered under its number once, or told that it gets no answer.
2. A question of ours to the host has an id that no other kernel uses: an answer to a question of the kernel before is dropped, so that no
   person's yes is taken for another question's.
"""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Numbers", "Origin"]

HANDSHAKE = frozenset({"initialize", "notifications/initialized", "resources/subscribe", "resources/unsubscribe"})
"""What makes a connection what it is; the next kernel is told again."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which line of which bridge a call is."""

    bridge: str
    number: int
    again: bool
    """A kernel that ended may have applied it."""


@dataclass(slots=True)
class Numbers:
    bridge: str
    life: str
    """Of this kernel; in the ids of its questions."""
    _open: dict[str | int, tuple[int, bytes]] = field(default_factory=dict)
    _asked: dict[str, Any] = field(default_factory=dict)

    def opened(self, request_id: str | int, number: int, method: str) -> bytes | None:
        """A request was read. What to say when its id was open already: the earlier one gets no answer of its own."""
        earlier = self.closed(request_id)
        self._open[request_id] = (number, b"=" if method in HANDSHAKE else b"")
        return earlier

    def closed(self, request_id: Any) -> bytes | None:
        """Line that says that the request gets no answer; None when it has none to get."""
        found = self._open.pop(request_id, None) if isinstance(request_id, str | int) else None
        return None if found is None else b"%d%b" % found

    def prefix(self, request_id: Any) -> bytes:
        """Of the answer to the request."""
        found = self._open.pop(request_id, None) if isinstance(request_id, str | int) else None
        return b"0 " if found is None else b"%d%b " % found

    @staticmethod
    def heard(number: int, method: str | None) -> bytes:
        """Line that says that a notification, or the host's answer to a question, was taken."""
        return b"%d%b" % (number, b"=" if method in HANDSHAKE else b"")

    def renamed(self, message: Any) -> Any:
        """A question of ours, or the word that we gave one up, with the id under which it goes out."""
        if hasattr(message, "id"):
            named = f"{self.life}-{message.id}"
            self._asked[named] = message.id
            return message.model_copy(update={"id": named})
        if message.method == "notifications/cancelled" and "requestId" in (message.params or {}):
            named = f"{self.life}-{message.params['requestId']}"
            return message.model_copy(update={"params": {**message.params, "requestId": named}})
        return message

    def answered(self, named: Any) -> Any:
        """The id of our question, from that of the host's answer; None when it was another kernel's."""
        return self._asked.pop(named, None) if isinstance(named, str) else None
