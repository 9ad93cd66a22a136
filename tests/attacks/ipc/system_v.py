# Leaves System V objects on the host, which live until somebody removes them.
# severity: medium
# escape: ipc, changed
# may lack: System V IPC
import errno

from raw import A, call, lacks, tried

key = int(A.ipc_key)
for name, arguments in {"shmget": (key, 4096, 0o1666), "semget": (key, 1, 0o1666), "msgget": (key, 0o1666)}.items():
    try:
        print(name, call(name, *arguments))
    except OSError as error:
        print(error)
        if error.errno == errno.ENOSYS:
            lacks("System V IPC")
tried()
