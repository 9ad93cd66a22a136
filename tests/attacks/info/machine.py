# Reads what the kernel tells about the machine and everybody on it.
# severity: low
# escape: said
from raw import attempt, tried

for path in (
    "mounts",
    "self/mountinfo",
    "self/status",
    "self/maps",
    "net/tcp",
    "net/unix",
    "locks",
    "modules",
    "cmdline",
    "interrupts",
    "meminfo",
    "stat",
    "self/cgroup",
    "sys/kernel/random/boot_id",
):
    attempt(path, lambda path=path: open(f"/proc/{path}").read(10))
for path in (
    "/sys/class/net",
    "/sys/kernel/security",
    "/sys/fs/cgroup",
    "/etc/machine-id",
    "/etc/hostname",
    "/var/log",
    "/run",
):
    attempt(path, lambda path=path: __import__("os").listdir(path) if "etc" not in path else open(path).read(1))
tried()
