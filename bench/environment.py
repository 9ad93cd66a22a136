"""What this machine is, and what makes its numbers doubtful.

Guarantees
1. Every report carries the facts that a reader needs to judge it: CPU, kernel, load, file system, Python, SQLite, frequency governor.
2. A doubt names what was seen, why it matters, and the line that removes it, or says that nothing on this machine can.
3. A file that cannot be read gives `unknown`, never a guess; nothing here changes a setting.

The doubts follow isolate's `isolate-check-environment` in spirit: measuring goes on, but the report says what not to believe.
Linux tells the most (/proc, /sys); elsewhere the list is shorter and says so.
"""

import importlib.metadata
import os
import platform
import sqlite3
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from agent_kernel.base.store import file_system_of

__all__ = ["MEMORY_FILE_SYSTEMS", "Doubt", "Host", "doubts", "look", "steal_ticks"]

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Host:
    cpu: str
    cpus: int
    """Those this process may use, which in a container is fewer than the machine has."""
    kernel: str
    governor: str
    load: tuple[float, float, float]
    virtual: bool
    file_system: str
    folder: str
    python: str
    sqlite: str
    agent_kernel: str


@dataclass(frozen=True, slots=True)
class Doubt:
    seen: str
    why: str
    fix: str


def look(folder: Path) -> Host:
    return Host(
        cpu=_cpu_name(),
        cpus=_cpus(),
        kernel=f"{platform.system()} {platform.release()}",
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        load=os.getloadavg(),
        virtual="hypervisor" in _read("/proc/cpuinfo"),
        file_system=file_system_of(folder) or "unknown",
        folder=str(folder),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        agent_kernel=importlib.metadata.version("agent-kernel"),
    )


def doubts(host: Host) -> list[Doubt]:
    """What makes this host unreliable, worst first."""
    found = [
        *_load(host),
        *_file_system(host),
        *_quota(),
        *_frequency(host),
        *_neighbours(host),
        *_memory(),
        *_interpreter(),
    ]
    if sys.platform != "linux":
        found.append(
            Doubt("this is not Linux", "governor, quota, steal and memory settings cannot be read here", "none")
        )
    return found


def steal_ticks() -> int | None:
    """Hundredths of a second that the hypervisor gave to others, since boot, summed over CPUs; None where it is not told."""
    fields = _read("/proc/stat").split("\n", 1)[0].split()
    return int(fields[8]) if len(fields) > 8 else None


def _load(host: Host) -> list[Doubt]:
    if host.load[0] <= 0.5 * host.cpus:
        return []
    return [
        Doubt(
            f"load average {host.load[0]:.2f} on {host.cpus} CPUs",
            "other work takes the CPU between a request and its answer; p95 and p99 then measure that work",
            "stop it, or trust only the ratios and the minimum",
        )
    ]


def _file_system(host: Host) -> list[Doubt]:
    if host.file_system not in MEMORY_FILE_SYSTEMS:
        return []
    return [
        Doubt(
            f"the files are on {host.file_system}",
            "a sync that reaches no disk costs nothing, so every durable write looks free",
            "--folder DIR on a real disk",
        )
    ]


def _quota() -> list[Doubt]:
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not period or quota == "max":
        return []
    return [
        Doubt(
            f"a CPU quota of {int(quota) / int(period):.2f} CPUs",
            "a process that used up its share stands still for the rest of the period",
            "run outside the container, or without --cpus",
        )
    ]


def _frequency(host: Host) -> list[Doubt]:
    found = []
    if host.governor not in ("performance", "unknown"):
        found.append(
            Doubt(
                f"CPU governor {host.governor}",
                "short work is done before the clock has risen",
                "cpupower frequency-set -g performance",
            )
        )
    boost = _read("/sys/devices/system/cpu/cpufreq/boost")
    if boost == "1" or _read("/sys/devices/system/cpu/intel_pstate/no_turbo") == "0":
        found.append(
            Doubt(
                "the CPU may boost",
                "the clock falls as the chip warms, so later rounds are slower",
                "echo 0 > /sys/devices/system/cpu/cpufreq/boost   (intel: echo 1 > .../intel_pstate/no_turbo)",
            )
        )
    return found


def _neighbours(host: Host) -> list[Doubt]:
    found = []
    if host.virtual:
        found.append(
            Doubt(
                "a virtual machine",
                "page faults and forks cost several times what they do on metal, and neighbours take time away",
                "none from inside; the report gives the time stolen while it measured",
            )
        )
    if _read("/sys/devices/system/cpu/smt/active") == "1":
        found.append(
            Doubt("sibling threads share cores", "work on the sibling slows this one", "echo off > .../cpu/smt/control")
        )
    if host.cpus < 2:
        found.append(Doubt("one CPU", "caller and sandbox cannot run at the same time", "none"))
    return found


def _memory() -> list[Doubt]:
    found = []
    if "[always]" in _read("/sys/kernel/mm/transparent_hugepage/enabled"):
        found.append(
            Doubt(
                "huge pages for everybody",
                "a fork or first touch may clear 2 MiB at once, or not",
                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            )
        )
    swap = {
        line.split(":")[0]: line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("Swap")
    }
    if swap.get("SwapTotal", "0") != swap.get("SwapFree", "0"):
        found.append(Doubt("swap is in use", "a page that must be read back costs milliseconds", "swapoff -a"))
    return found


def _interpreter() -> list[Doubt]:
    found = []
    if sysconfig.get_config_var("Py_DEBUG"):
        found.append(Doubt("a debug build of Python", "it is several times slower", "use a release build"))
    if sys.gettrace() is not None or sys.getprofile() is not None:
        found.append(Doubt("a debugger or profiler is attached", "every call is slower", "run without it"))
    return found


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf8", errors="replace").strip()
    except OSError:
        return ""
