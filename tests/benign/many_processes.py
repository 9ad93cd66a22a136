# Has forty children at once, fewer than the limit.
# stdout: '40\n'
import os
import time

pids = []
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os._exit(0)
    pids.append(pid)
print(sum(os.waitpid(pid, 0)[1] == 0 for pid in pids))
