# Replaces itself all the time, so that whoever looks at it sees a process that is just beginning.
# severity: medium
# escape: wall
# timeout: 2
# stops: timeout
import os
import sys

from raw import tried

tried()
PROGRAM = "import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', sys.argv[1], sys.argv[1]])"
os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", PROGRAM, PROGRAM])
