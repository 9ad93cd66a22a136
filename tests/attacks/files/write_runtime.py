# Opens the host's programs and libraries for writing; it writes nothing.
# severity: critical
# escape: said
# as: root
import json
import os
import sys

from raw import attempt, tried

for path in ("/usr/bin/env", "/bin/ls", os.path.realpath(sys.executable), json.__file__, "/usr/bin/tac"):
    attempt(path, lambda path=path: os.close(os.open(path, os.O_WRONLY)))
tried()
