# Ends, stops and interrupts the init of its own sandbox, by every signal.
# severity: high
# escape: kernel
# as: none without a sandbox there is no init to end
import os
import signal

from raw import refusable, tried

for number in sorted(signal.valid_signals()):
    with refusable(str(number)):
        os.kill(os.getppid(), number)
    with refusable(str(number)):
        os.kill(1, number)
tried()
