# Opens the memory and the descriptors of the kernel's own process; it reads nothing.
# severity: critical
# escape: said
# as: root
import os

from raw import A, attempt, tried

attempt("memory", lambda: os.close(os.open(f"/proc/{A.kernel}/mem", os.O_RDONLY)))
attempt("descriptors", lambda: os.listdir(f"/proc/{A.kernel}/fd"))
attempt("folder", lambda: os.listdir(f"/proc/{A.kernel}/cwd/"))
tried()
