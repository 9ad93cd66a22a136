"""What a person can do about a layer that this machine does not have: the line for `agent-kernel doctor`, by the name of the layer.

Nothing here weakens the machine for everybody: no switch is turned off that the owner or the distribution has turned on.
"""

from pathlib import Path

from .pool import interpreters

__all__ = ["advice"]


def advice(failed: set[str]) -> list[str]:
    """What a person can do about each layer that is not there; nothing that would weaken the host for everybody."""
    lines = []
    if failed & {"user namespace", "mount namespace", "private root"}:
        if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
            lines.append(
                "AppArmor lets only named programs use user namespaces (Ubuntu 24.04). Give this Python a profile with `userns,`:"
                f" /etc/apparmor.d/agent-kernel with `profile agent-kernel {interpreters()[0]} flags=(unconfined) {{ userns, }}`,"
                " then `apparmor_parser -r` it."
            )
        elif _sysctl("user/max_user_namespaces") == "0":
            lines.append("User namespaces are switched off. Run as root: sysctl -w user.max_user_namespaces=15000")
        else:
            lines.append(
                "Something around us forbids namespaces, usually a container's seccomp profile. Run on the host, or start the"
                " container with a profile that allows clone, unshare, mount and pivot_root for user namespaces."
            )
    if "landlock" in failed:
        lines.append(
            "Landlock is missing: it needs Linux 5.13 and `landlock` in the kernel's lsm= list (/sys/kernel/security/lsm)."
        )
    if "seccomp" in failed:
        lines.append("seccomp filters are missing: the kernel needs CONFIG_SECCOMP_FILTER.")
    return lines


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
