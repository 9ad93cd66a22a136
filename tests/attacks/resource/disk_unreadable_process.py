# Becomes a program that it may run and not read, so that others of its user may not look at what it holds open.
# severity: high
# escape: disk, said
# stops: disk
import os
import shutil
import sys

from raw import A, tried

REST = """
import os, time
held, written = [], 0
try:
    for _ in range(30):
        held.append(os.open("f", os.O_RDWR | os.O_CREAT))
        os.unlink("f")
        written += os.write(held[-1], bytes(4 << 20))
except OSError as error:
    print(error)
time.sleep(2.5 if CONTROL else 9)
if written > 72 << 20:
    print("ESCAPED", written, "bytes held by a process that nobody may look at")
print("TRIED")
"""
shutil.copyfile(os.path.realpath(sys.executable), "unreadable")
os.chmod("unreadable", 0o111)
sys.stdout.flush()
try:
    os.execv("./unreadable", ["python3", "-I", "-S", "-c", REST.replace("CONTROL", str(A.way == "control"))])
except OSError as error:
    print(error)
tried()
