# Asks for a way out: to the metadata service, to a name server, to anybody. Nothing is sent.
# severity: critical
# escape: said
# may lack: a way out
import socket

from raw import escaped, lacks, tried

ways = 0
for host in ("169.254.169.254", "192.0.2.1", "8.8.8.8"):
    try:
        one = socket.socket(type=socket.SOCK_DGRAM)
        one.connect((host, 53))
        escaped(f"a way to {host} from {one.getsockname()[0]}")
        ways += 1
    except OSError as error:
        print(error)
if not ways:
    lacks("a way out")
tried()
