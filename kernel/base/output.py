"""What a guest prints, bounded while it is produced: the head and the tail of each stream are kept, the middle is dropped and counted.

Guarantees
1. A stream never holds more than `kept` bytes and one read, whatever is written to it.
2. `text` is valid Unicode that moves no cursor, rings no bell and hides nothing: invalid UTF-8 becomes U+FFFD, control characters but tab
   and newline become their pictures (ESC is ␛), characters that reorder text or are not seen at all become U+FFFD. The joiners that
   scripts and emoji need (U+200C, U+200D, U+FE00 to U+FE0F) stay.
3. Reading stops when the guest is dead, not at the end of file: a survivor may hold the other end open for ever.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Stream", "harmless"]

READ_BYTES = 1 << 16
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_UNSEEN = (
    (0x061C, 0x061C), (0x200B, 0x200B), (0x200E, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Marks of direction, zero-width space, line separators, embeddings, invisible operators, byte order mark, annotations, tags and the
supplementary selectors: they show in another order than they read, or carry words to a model past the person who looks."""
_PICTURES |= {code: 0xFFFD for first, last in _UNSEEN for code in range(first, last + 1)}


def harmless(text: str) -> str:
    return text.replace("\r\n", "\n").translate(_PICTURES)


class Stream:
    """The reading end of a pipe."""

    def __init__(self, descriptor: int, kept: int, on_bytes: Callable[[int], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._half = kept // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._on_bytes = on_bytes
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.bytes_seen = 0
        self._loop.add_reader(descriptor, self._readable)

    def drain(self) -> None:
        """Take what is in the pipe now, and no more."""
        if self._open:
            for _ in range(16):  # a pipe holds 64 KiB; whoever refills it is not waited for
                if not self._read():
                    break

    def close(self) -> None:
        self._shut()

    @property
    def dropped(self) -> int:
        return self.bytes_seen - len(self._head) - len(self._tail)

    def text(self) -> str:
        if not self.dropped:
            return harmless(bytes(self._head + self._tail).decode(errors="replace"))
        head, tail = (harmless(bytes(part).decode(errors="replace")) for part in (self._head, self._tail))
        return f"{head}\n[... {self.dropped} bytes left out ...]\n{tail}"

    def _readable(self) -> None:
        if not self._read():
            self._shut()

    def _read(self) -> bool:
        """One read; False at the end of file. Nothing there is not the end, unless `close` asks."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            return False
        count = len(data)
        self.bytes_seen += count
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        del self._tail[: -self._half or None]
        self._on_bytes(count)
        return True

    def _shut(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
