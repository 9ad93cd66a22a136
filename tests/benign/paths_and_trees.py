# Walks, copies, moves and removes trees; modes and times stay.
# stdout: "['a/b/c.txt', 'a/d.txt'] 0o640 1 False\n"
# files: moved/b/c.txt, moved/d.txt
import os
import shutil
from pathlib import Path

root = Path("a")
(root / "b").mkdir(parents=True)
(root / "b" / "c.txt").write_text("c")
(root / "d.txt").write_text("d")
(root / "d.txt").chmod(0o640)
os.utime(root / "d.txt", (1, 1))
print(sorted(str(path) for path in root.rglob("*.txt")), end=" ")
shutil.copytree(root, "copy")
shutil.move(root, "moved")
facts = Path("copy/d.txt").stat()
print(oct(facts.st_mode & 0o777), int(facts.st_mtime), end=" ")
shutil.rmtree("copy")
print(Path("copy").exists())
