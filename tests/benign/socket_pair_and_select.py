# Socket pairs, selectors and non-blocking reads.
# stdout: "b'hello' True []\n"
import select
import selectors
import socket

a, b = socket.socketpair()
with selectors.DefaultSelector() as selector:
    selector.register(b, selectors.EVENT_READ)
    a.sendall(b"hello")
    ready = selector.select(5)
    print(b.recv(100), bool(ready), select.select([b], [], [], 0)[0])
a.close()
b.close()
