# Leaves a FIFO of the name of an output: who opens it waits for ever.
# severity: high
# escape: artefact
import os

from raw import tried

os.mkfifo("result.csv")
tried()
