# Searches its own memory for what is left of the kernel or of those who were here before.
# severity: critical
# escape: secret
import gc
import os
import re
import sys

from raw import show, tried

found = set()
pattern = re.compile("(?:KERNEL|NEIGHBOUR|CANARY|STATE|PRIVATE)-[0-9a-f]{24}")


def look(text):
    found.update(pattern.findall(text))


for one in (*gc.get_objects(), dict(os.environ)):
    try:
        look(repr(one) if isinstance(one, (dict, list, tuple, str, bytes)) else "")
    except Exception:
        pass
for module in list(sys.modules.values()):
    try:
        look(repr(vars(module)))
    except Exception:
        pass
show(" ".join(found).encode())
tried()
