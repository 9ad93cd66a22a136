# Forks children, waits for them, sees their codes and signals.
# stdout: '[0, 1, 2] -9\n'
import os
import signal

pids = []
for code in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    pids.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
pid = os.fork()
if pid == 0:
    signal.pause()
os.kill(pid, signal.SIGKILL)
print(codes, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
