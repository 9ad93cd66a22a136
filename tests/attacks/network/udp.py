# Sends to a listener of the host by UDP, as a question for a name.
# severity: critical
# escape: heard
import socket

from raw import A, refusable, tried

with refusable("udp"):
    one = socket.socket(type=socket.SOCK_DGRAM)
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x07example\x00\x00\x01\x00\x01"
    one.sendto(question, ("127.0.0.1", int(A.udp)))
    one.sendto(question, ("localhost", int(A.udp)))
tried()
