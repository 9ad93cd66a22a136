# Looks into a process of the host: its mappings, its pages, whether it is the same.
# severity: medium
# escape: said
import ctypes
import os

from raw import A, attempt, call, tried

attempt("maps", lambda: open(f"/proc/{A.victim}/maps").read(10))
attempt(
    "move_pages",
    lambda: call(
        "move_pages",
        int(A.victim),
        1,
        ctypes.create_string_buffer(int(A.victim_address).to_bytes(8, "little")),
        None,
        ctypes.create_string_buffer(8),
        0,
    ),
)
attempt("kcmp", lambda: call("kcmp", os.getpid(), int(A.victim), 0, 0, 0))
attempt("robust list", lambda: call(274, int(A.victim), ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)))
tried()
