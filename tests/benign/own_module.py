# Writes a module and a package, imports both, reloads one.
# stdout: '3 4 5\n'
# files: mine.py, package/__init__.py, package/part.py
import importlib
import os

with open("mine.py", "w") as file:
    file.write("x = 3\n")
os.mkdir("package")
open("package/__init__.py", "w").close()
with open("package/part.py", "w") as file:
    file.write("from mine import x\ny = x + 1\n")
import mine
from package.part import y

print(mine.x, y, end=" ")
with open("mine.py", "w") as file:
    file.write("x = 5  # changed\n")
importlib.invalidate_caches()
print(importlib.reload(mine).x)
