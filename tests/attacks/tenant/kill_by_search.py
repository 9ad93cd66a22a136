# Ends every process it finds near itself, by number.
# severity: critical
# escape: neighbour
# as: own uid
# neighbour: yes
import os

from raw import A, refusable, tried

for number in range(int(A.neighbour) - 3, int(A.neighbour) + 4):
    if number not in (os.getpid(), os.getppid()):
        try:
            os.kill(number, 9)
        except OSError:
            pass
tried()
