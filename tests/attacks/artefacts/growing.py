# Lets a file grow all the time, also after its end, while it is collected.
# severity: high
# escape: artefact, survivor
# stops: disk, files
import os

from raw import end, fork, tried


def grow():
    os.setsid()
    with open("result", "wb", 0) as file:
        for _ in range(40):
            file.write(bytes(1 << 20))
        while True:
            file.seek(0)
            file.write(bytes(1 << 20))


fork(grow)
tried()
end(exit_code=0)
os._exit(0)
