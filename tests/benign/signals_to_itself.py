# Handlers, alarms and timers of its own.
# stdout: "['SIGUSR1', 'SIGALRM'] interrupted\n"
import os
import signal

heard = []
for number in (signal.SIGUSR1, signal.SIGALRM):
    signal.signal(number, lambda number, _: heard.append(signal.Signals(number).name))
os.kill(os.getpid(), signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
try:
    os.kill(os.getpid(), signal.SIGINT)
    word = "went on"
except KeyboardInterrupt:
    word = "interrupted"
print(heard, word)
