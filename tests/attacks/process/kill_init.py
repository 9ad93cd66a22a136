# Ends, stops and interrupts the init of its own sandbox, by every signal.
# severity: high
# escape: kernel
# as: none without a sandbox there is no init to end
import os
import signal

from raw import refusable, tried

for number in sorted(signal.valid_signals()):
    if os.getppid() > 0:  # else it is outside the namespace, and 0 is its own group
        with refusable(str(number)):
            os.kill(os.getppid(), number)
    with refusable(str(number)):
        os.kill(1, number)
tried()
