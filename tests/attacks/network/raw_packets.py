# Opens sockets that see or send packets as they are.
# severity: critical
# escape: said
# as: root
import socket

from raw import attempt, tried

attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
attempt("packet datagram", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 3))
attempt("ping", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1))
tried()
