# Opens what the kernel runs as root when a control group empties, and other doors below /sys; it writes nothing.
# severity: critical
# escape: said
# as: root
import glob
import os

from raw import attempt, tried

for path in (
    *glob.glob("/sys/fs/cgroup/*/release_agent"),
    *glob.glob("/sys/fs/cgroup/*/cgroup.procs"),
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
):
    attempt(path, lambda path=path: os.close(os.open(path, os.O_WRONLY)))
tried()
