# Loads code into the kernel: modules, another kernel.
# severity: critical
# escape: said
# as: root
# may lack: modules and kexec
import errno

from raw import call, escaped, lacks, tried

missing = 0
for name, arguments in {"init_module": (0, 0, b""), "finit_module": (-1, b"", 0), "kexec_load": (0, 17, 0, 0)}.items():
    try:
        call(name, *arguments)
        escaped(name)
    except OSError as error:
        print(error)
        missing += error.errno == errno.ENOSYS
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            escaped(f"{name} is reached: {error}")
if missing == 3:
    lacks("modules and kexec")
tried()
