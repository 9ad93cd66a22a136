# Uses the kernel's keyrings, which are shared beyond namespaces.
# severity: medium
# escape: said
# may lack: keyrings
import errno

from raw import call, escaped, lacks, tried

for name, arguments in {
    "add_key": (b"user", b"planted", b"x", 1, -3),
    "keyctl": (0, -3, 1),
    "request_key": (b"user", b"planted", 0, -3),
}.items():
    try:
        call(name, *arguments)
        escaped(name)
    except OSError as error:
        print(error)
        if error.errno == errno.ENOSYS:
            lacks("keyrings")
tried()
