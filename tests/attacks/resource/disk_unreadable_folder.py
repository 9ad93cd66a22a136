# Writes into folders that nobody may list, so that whoever counts by listing sees nothing.
# severity: high
# escape: disk, said
# stops: disk
import os
import threading

from raw import escaped, hold_alone, refusable, tried

written = 0


def flip():
    while True:
        with refusable():
            os.chmod("d", 0o300)


with refusable("write"):
    os.mkdir("d")
    place = os.open("d", os.O_PATH)
    os.chmod("d", 0o300)
    threading.Thread(target=flip, daemon=True).start()
    for number in range(120):
        with refusable("one"):
            descriptor = os.open(f"f{number}", os.O_WRONLY | os.O_CREAT, dir_fd=place)
            written += os.write(descriptor, bytes(1 << 20))
            os.close(descriptor)
hold_alone()
if written > 72 << 20:
    escaped(f"{written} bytes in a folder that cannot be listed")
tried()
