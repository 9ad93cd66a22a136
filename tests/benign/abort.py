# Aborts: the exit code is that of a shell.
# exit: 134
# stdout: ''
import os

os.abort()
