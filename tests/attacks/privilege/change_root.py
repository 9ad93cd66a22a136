# Changes its root folder.
# severity: high
# escape: said
# as: root
import os

from raw import attempt, call, tried

attempt("chroot", lambda: os.chroot("."))
attempt("pivot_root", lambda: call("pivot_root", b".", b"."))
tried()
