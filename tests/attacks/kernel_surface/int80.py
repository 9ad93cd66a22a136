# Calls the kernel by the gate of another architecture, which a filter by number does not see.
# severity: critical
# escape: said
# may lack: int 0x80
# dies: 159
from raw import X86, escaped, lacks, machine_code, tried

if not X86:
    lacks("int 0x80")
else:
    found = machine_code(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid; int 0x80; ret
    if found > 0:
        escaped(f"int 0x80 says {found}")
    else:
        lacks("int 0x80")
tried()
