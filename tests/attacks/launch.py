"""The control's way in: what a plain subprocess would be, as a user of no rights, and nothing that isolates.

launch.py UID FRAMES program...       UID 0 stays what we are; descriptor FRAMES becomes 3, -1 is none
"""

import os
import sys

uid, frames = int(sys.argv[1]), int(sys.argv[2])
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("500")
if frames > 3:
    os.dup2(frames, 3)
    os.close(frames)
if frames >= 0:
    os.set_inheritable(3, True)
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
os.execv(sys.argv[3], sys.argv[3:])
