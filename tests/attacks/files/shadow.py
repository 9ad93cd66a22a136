# Opens the host's password hashes; it reads none of them.
# severity: critical
# escape: said
# as: root
import os

from raw import attempt, tried

attempt("/etc/shadow", lambda: os.close(os.open("/etc/shadow", os.O_RDONLY)))
tried()
