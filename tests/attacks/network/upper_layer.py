# Puts kernel code between itself and a socket: TLS and other upper layers, filters, signatures; and takes larger buffers than it may.
# severity: high
# escape: said
import errno
import socket
import struct

from raw import escaped, refusable, tried


def reach(name, one, level, option, value):
    """Any answer but that it is forbidden or not there comes from behind the door."""
    before = one.getsockopt(1, 7)
    try:
        one.setsockopt(level, option, value)
    except OSError as error:
        print(name, error)
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            escaped(f"{name} is reached: {error}")
    else:
        if option not in (7, 32) or one.getsockopt(1, 7) > before:
            escaped(name)


FILTER = struct.pack("HxxxxxxQ", 1, id(b"\x06\0\0\0\0\0\0\0") + 32)
with refusable("a connection of its own"):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    for layer in (b"tls", b"mptcp", b"smc", b"espintcp"):
        reach(f"layer {layer.decode()}", client, 6, 31, layer)
    reach("filter", client, 1, 26, FILTER)
    reach("signature", client, 6, 14, bytes(216))
    reach("repair", client, 6, 19, 1)
    reach("buffer by force", client, 1, 32, 1 << 24)
with refusable("a local pair"):
    one = socket.socketpair()[0]
    reach("filter on a pair", one, 1, 26, FILTER)
    reach("busy poll", one, 1, 46, 50)
tried()
