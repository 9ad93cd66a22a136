# Opens the machine's disks, memory and log; it reads and writes nothing.
# severity: critical
# escape: said
# as: root
import glob
import os

from raw import attempt, tried

for path in (
    "/dev/mem",
    "/dev/kmsg",
    "/dev/port",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/loop-control",
    "/dev/ptmx",
    "/dev/rtc0",
    *glob.glob("/dev/vd?"),
    *glob.glob("/dev/sd?"),
    "/dev/vda",
    "/dev/sda",
):
    attempt(path, lambda path=path: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
tried()
