# Maps a file and searches in it; shares anonymous memory with a child.
# stdout: '6 b"x"\n'
# files: big.bin
import mmap
import os

with open("big.bin", "w+b") as file:
    file.write(b"hello " + b"needle" + bytes(100_000))
    file.flush()
    with mmap.mmap(file.fileno(), 0) as mapped:
        place = mapped.find(b"needle")
shared = mmap.mmap(-1, 4096)
pid = os.fork()
if pid == 0:
    shared[0:1] = b"x"
    os._exit(0)
os.waitpid(pid, 0)
print(place, repr(shared[0:1]).replace("'", '"'))
