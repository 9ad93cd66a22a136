# Makes itself the last to go when memory runs out.
# severity: medium
# escape: oom
from raw import refusable, stay, tried

stay(0.4)
with refusable("order"), open("/proc/self/oom_score_adj", "w") as file:
    file.write("0")
stay(0.5)
tried()
