# Packs and unpacks archives of every usual kind.
# stdout: "['a.txt', 'd/b.txt'] hello hello\n"
# files: a.txt, all.tar.gz, all.zip, d/b.txt, out/a.txt, out/d/b.txt
import gzip
import os
import shutil
import tarfile
import zipfile

os.makedirs("d")
for name in ("a.txt", "d/b.txt"):
    with open(name, "w") as file:
        file.write("hello")
with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.write("a.txt")
    archive.write("d/b.txt")
with tarfile.open("all.tar.gz", "w:gz") as archive:
    archive.add("a.txt")
    archive.add("d")
with tarfile.open("all.tar.gz") as archive:
    archive.extractall("out")
with zipfile.ZipFile("all.zip") as archive:
    print(sorted(archive.namelist()), archive.read("a.txt").decode(), gzip.decompress(gzip.compress(b"hello")).decode())
