# Leaves folders and files that nobody may read or list, so that they cannot be cleared away.
# severity: medium
# escape: artefact
# as: none a control that removes as root removes these
import os

from raw import tried

for name in ("a", "a/b", "a/b/c"):
    os.mkdir(name)
    with open(f"{name}/file", "w") as file:
        file.write("x")
    os.chmod(f"{name}/file", 0)
for name in ("a/b/c", "a/b", "a"):
    os.chmod(name, 0)
tried()
