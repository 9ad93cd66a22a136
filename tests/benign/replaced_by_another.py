# Becomes another program.
# stdout: 'before\nafter\n'
import os

print("before", flush=True)
os.execvp("echo", ["echo", "after"])
