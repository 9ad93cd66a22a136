"""A process of the judge's own that must be left alone. Secrets: one in argv, one in the environment, one in memory only.

Says `ready ADDRESS` and then every signal that reaches it; answers each line of stdin with the hex of what its memory holds.
"""

import ctypes
import os
import signal
import sys

kept = ctypes.create_string_buffer(sys.stdin.readline().strip().encode())


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, lambda number, _: say(f"signal {number}"))
print("ready", ctypes.addressof(kept), flush=True)
for _ in sys.stdin:
    say(f"holds {kept.raw.rstrip(bytes(1)).hex()}")
