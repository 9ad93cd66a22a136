"""Another tenant at work while an attack runs: it leaves secrets where it may, and tells of everything that reaches it."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time

SECRET, MARKER, NAME = sys.argv[1:4]

try:
    import kernel

    tell = kernel.log
except ImportError:

    def tell(text):
        os.write(1, f"{text}\n".encode())


ctypes.CDLL(None).prctl(15, NAME.encode(), 0, 0, 0)  # so that it is found from outside
kept = ctypes.create_string_buffer(SECRET.encode())
tmp = os.environ.get("TMPDIR", "/tmp")
for place in (os.getcwd(), tmp, "/dev/shm"):
    with contextlib.suppress(OSError), open(f"{place}/neighbour-{MARKER}", "w") as file:
        file.write(SECRET)
with contextlib.suppress(OSError):
    os.symlink(SECRET, f"{tmp}/link-{MARKER}")


def listen(kind):
    with contextlib.suppress(OSError):
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(f"\0neighbour-{kind}-{MARKER}")
        if kind == socket.SOCK_STREAM:
            listener.listen()
            listener.accept()
        else:
            listener.recv(100)
        tell("disturbed: somebody speaks to it")


for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    threading.Thread(target=listen, args=(int(kind),), daemon=True).start()
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda number, _: tell(f"disturbed: signal {number}"))
tell(f"ready {ctypes.addressof(kept)} {tmp} {os.getcwd()}")
while True:
    time.sleep(1)
    if not os.path.exists(f"{tmp}/neighbour-{MARKER}"):
        tell("disturbed: its file is gone")
