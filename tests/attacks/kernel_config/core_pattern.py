# Opens what the kernel runs as root when something crashes, and its neighbours; it writes nothing.
# severity: critical
# escape: said
# as: root
import os

from raw import attempt, tried

for name in (
    "kernel/core_pattern",
    "kernel/modprobe",
    "kernel/sysrq",
    "vm/overcommit_memory",
    "kernel/yama/ptrace_scope",
    "net/ipv4/ip_forward",
    "kernel/hotplug",
    "user/max_user_namespaces",
):
    attempt(name, lambda name=name: os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY)))
attempt("sysrq-trigger", lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY)))
tried()
