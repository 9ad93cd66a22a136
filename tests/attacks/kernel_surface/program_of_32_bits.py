# Runs a program of 32 bits, all of whose calls go by the other gate.
# severity: critical
# escape: said
# may lack: int 0x80
import os
import subprocess

from raw import X86, elf, escaped, lacks, tried

if X86:
    with open("small", "wb") as file:  # mov eax, exit; mov ebx, 42; int 0x80
        file.write(elf(bytes.fromhex("b801000000bb2a000000cd80"), bits=32))
    os.chmod("small", 0o755)
    try:
        code = subprocess.run(["./small"]).returncode
    except OSError as error:
        code = error.errno
    print(code)
    if code == 42:
        escaped("a program of 32 bits ran")
    elif code == 8:
        lacks("int 0x80")
else:
    lacks("int 0x80")
tried()
