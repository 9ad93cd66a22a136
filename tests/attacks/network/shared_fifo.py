# Writes into a FIFO of the host that lies in a shared folder: a read-only mount does not stop that either.
# severity: medium
# escape: heard
# share: yes
# price: full: to write to FIFOs below a shared folder
import os

from raw import A, refusable, tried

with refusable("fifo"):
    os.write(os.open(f"{A.shared_dir}/fifo", os.O_WRONLY | os.O_NONBLOCK), b"hello")
tried()
