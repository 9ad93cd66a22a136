"""The list of system calls that a sandbox may make, compiled once to BPF bytes.

Default-deny: what is not named fails with ENOSYS, as on an older kernel, so that libc falls back; what is known to be dangerous fails
with the familiar EPERM; another architecture's calls (int 0x80, x32) kill the process. Errnos and not signals, because programs probe.

    filter      for                       sockets                                      why
    full        tier full                 UNIX, INET, INET6; STREAM and DGRAM          the network namespace holds a loopback and nothing else
    visiting    full, when folders of     INET, INET6; pairs of STREAM and SEQPACKET   a socket that lies in a folder of the host is a door to
                the host are shared                                                    its owner: a read-only mount does not stop connect
    shared      tier confined             none; pairs of STREAM and SEQPACKET          there is no namespace, and a datagram pair reaches any
                                                                                       abstract socket of the machine by sendto

`shared` leaves nothing to Landlock that Landlock does not judge: chmod and utimensat of any file that the uid may change (touching needs
write permission only), setpriority, sched_setaffinity, inotify.

Guarantees
1. No call here makes a namespace, a mount, a device, a set-uid file, a memory file that no limit counts, or reaches into another process.
2. The same version of libseccomp gives the same bytes: `digest` of them is what `doctor` shows.

Not here: loading (cell/layers.py, by prctl, with ctypes only): libseccomp is needed where the kernel runs, not behind the wall.
"""

import hashlib
import importlib
import tempfile
from types import ModuleType
from typing import Any

from .errors import HostError

__all__ = ["compile_filter", "digest"]

EPERM, ENOMEM, ENOSYS, ENOTSUP = 1, 12, 38, 95

ALLOWED = """
    access alarm arch_prctl brk capget chdir clock_getres clock_gettime clock_nanosleep close close_range copy_file_range dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat
    exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fdatasync fgetxattr flistxattr flock fork fstat fstatfs fsync ftruncate
    futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname
    gettid gettimeofday getuid inotify_rm_watch kill link
    linkat lseek lstat madvise membarrier mincore mkdir mkdirat mprotect mremap msync munmap nanosleep
    newfstatat pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read
    readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_yield select sendfile set_robust_list set_tid_address setitimer setpgid setsid
    shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync_file_range sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
    truncate umask uname unlink unlinkat vfork wait4 waitid write writev
""".split()  # noqa: SIM905  a list of 190 strings is not easier to read

ALLOWED_APART = {
    "getxattr": ENOTSUP, "lgetxattr": ENOTSUP, "listxattr": ENOTSUP, "llistxattr": ENOTSUP,
    "inotify_add_watch": EPERM, "inotify_init": EPERM, "inotify_init1": EPERM,
}  # fmt: skip
"""By path, and judged by nobody but the file's owner and mode: only where the guest sees no path of the host. Else these errnos."""
ALLOWED_WITH_OWN_UID = "sched_setaffinity setpriority utime utimensat utimes".split()  # noqa: SIM905
HANDED_OVER = "chmod fchmod fchmodat utimensat".split()  # noqa: SIM905
"""In `shared`: cell/permits.py does them for the guest, beneath its own folders only."""

ALLOWED_WITH_SOCKETS = ["accept", "accept4", "bind", "connect", "listen"]

REFUSED = """
    acct add_key adjtimex bpf capset chown chroot clock_adjtime clock_settime create_module delete_module fanotify_init fanotify_mark fchown
    fchownat finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_cancel
    io_destroy io_getevents io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioperm iopl ioprio_set kcmp kexec_file_load
    kexec_load keyctl lchown lookup_dcookie mbind memfd_create memfd_secret migrate_pages mlock mlock2 mlockall
    modify_ldt mount mount_setattr move_mount move_pages mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl
    msgget msgrcv msgsnd name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise
    process_mrelease process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot remap_file_pages
    request_key sched_setattr sched_setparam sched_setscheduler seccomp semctl semget semop semtimedop set_mempolicy setdomainname
    setfsgid setfsuid setgid setgroups sethostname setns setregid setresgid setresuid setreuid settimeofday setuid shmat shmctl
    shmdt shmget swapoff swapon sync syncfs sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vmsplice
""".split()  # noqa: SIM905

UNSUPPORTED = """
    fremovexattr fsetxattr lremovexattr lsetxattr removexattr setxattr
""".split()  # noqa: SIM905
"""Refused as a file system without attributes would: `cp -p` then goes on, where EPERM is an error to it."""

NURSERY = """
    brk clone close exit exit_group fstat futex getpid getrandom gettid madvise mmap mprotect mremap munmap newfstatat pidfd_open poll ppoll
    read recvfrom recvmsg restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sendmsg sendto set_robust_list write
""".split()  # noqa: SIM905
"""What cell/inits.py needs to make inits, and more than an init needs to be one."""

NAMESPACE_FLAGS = 0x7E020080
"""Every CLONE_NEW* of clone(2); 0x80, CLONE_NEWTIME, lies in the signal byte and cannot be asked for this way, so asking is refused too."""
CLONE_PARENT = 0x8000
"""Makes a sibling, a child of the zygote: nobody would wait for it, and a pid namespace with an unreaped process never ends."""
SET_ID_BITS = 0o6000
MAP_HUGETLB = 0x40000
CREATES = 0o100 | 0o20000000
"""O_CREAT and the own bit of O_TMPFILE: only with them does open(2) look at its mode."""
FIFO, FILE_TYPE = 0o010000, 0o170000
LOW_32_BITS = 0xFFFFFFFF
ALL_BITS = 0xFFFFFFFFFFFFFFFF
RLIMITS, RLIMIT_CORE = 16, 4
"""cell/layers.py sets the limit of a core file to 1, which keeps the host's crash handler away; 0 would let it be started."""
SOCKET_TYPE = 0xF
UNIX, INET, INET6 = 1, 2, 10
STREAM, DGRAM, SEQPACKET = 1, 2, 5
OF_INTERNET = {STREAM: (0, 6), DGRAM: (0, 17)}
PROTOCOLS = {UNIX: {STREAM: (0, 1), DGRAM: (0, 1)}, INET: OF_INTERNET, INET6: OF_INTERNET}
"""The family's own only: asking for another (SCTP, DCCP, L2TP, MPTCP, SMC) runs code that few look at, and may load it."""
IP, SOL_SOCKET, TCP, UDP, IPV6 = 0, 1, 6, 17, 41
SENT_FLAGS = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}
"""call -> which argument."""
MSG_OOB = 1
IP_OPTIONS = (1, 2, 8, 10, 11, 15, 24, 32, 33, 34, 35, 36)
"""TOS TTL PKTINFO MTU_DISCOVER RECVERR FREEBIND BIND_ADDRESS_NO_PORT, multicast"""
IPV6_OPTIONS = (16, 17, 18, 19, 20, 21, 23, 25, 26, 49, 67)
"""UNICAST_HOPS, multicast, MTU_DISCOVER RECVERR V6ONLY RECVPKTINFO TCLASS"""
UDP_OPTIONS = (1,)
TCP_OPTIONS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 23, 25, 30)
"""NODELAY MAXSEG CORK, KEEPIDLE to LINGER2, DEFER_ACCEPT WINDOW_CLAMP INFO QUICKACK CONGESTION USER_TIMEOUT FASTOPEN NOTSENT_LOWAT: not
TCP_ULP, which puts other kernel code between a program and its socket, nor signatures and repair."""
SOCKET_OPTIONS = (2, 3, 4, 5, 6, 9, 10, 12, 13, 15, 16, 18, 19, 20, 21, 29, 30, 34, 35, 38, 39, 66, 67)
"""REUSEADDR TYPE ERROR DONTROUTE BROADCAST KEEPALIVE OOBINLINE PRIORITY LINGER REUSEPORT PASSCRED, low-water marks, time-outs, time stamps,
what can only be read, PASSSEC"""
BUFFER_SIZES = (7, 8, 32, 33)

FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 36, 37, 38, 1030, 1032, 1033, 1034)
"""All but F_SETOWN, F_SETOWN_EX and F_SETSIG, which send signals to others, leases, notifications, and growing of pipes."""
IOCTL = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS TIOCGPGRP TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX: what isatty, select loops and close-on-exec need."""
PRCTL = (2, 3, 7, 15, 16, 21, 23, 27, 29, 30, 38, 39, 42, 0x53564D41)
"""Reading, naming (threads, memory), timer slack, and no_new_privs."""
PERSONALITY = (0, LOW_32_BITS)


def compile_filter(tier: str) -> bytes:
    """BPF for `full`, `visiting`, `shared` or `nursery`; 10-30 ms the first time in a process."""
    seccomp = _library()
    try:
        return _compiled(seccomp, tier)
    except OSError as error:
        raise HostError(
            "sandbox.unavailable",
            f"libseccomp cannot make the seccomp filter ({error}): this kernel has no seccomp filters, or something around us refuses"
            " them. Linux needs CONFIG_SECCOMP_FILTER.",
        ) from error


def _compiled(seccomp: ModuleType, tier: str) -> bytes:
    program = seccomp.SyscallFilter(seccomp.ERRNO(ENOSYS))
    program.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    program.set_attr(seccomp.Attr.CTL_NNP, 0)  # set by layers.py, one step a function
    rules = _Rules(seccomp, program)
    if tier == "nursery":
        for name in NURSERY:
            rules.allow(name)
        return _exported(program)
    for name in ALLOWED:
        rules.allow(name)
    for name in REFUSED:
        rules.refuse(name)
    for name in UNSUPPORTED:
        rules.refuse(name, errno=ENOTSUP)
    for name, errno in ALLOWED_APART.items():
        if tier == "full":
            rules.allow(name)
        else:
            rules.refuse(name, errno=errno)
    _memory_and_processes(rules, tier)
    _files(rules, tier)
    _sockets(rules, tier)
    _socket_options(rules)
    return _exported(program)


def _exported(program: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def digest(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()[:12]


class _Rules:
    def __init__(self, seccomp: ModuleType, program: Any) -> None:
        self._seccomp = seccomp
        self._program = program

    def allow(self, name: str, *conditions: Any) -> None:
        self._add(self._seccomp.ALLOW, name, conditions)

    def refuse(self, name: str, *conditions: Any, errno: int = EPERM) -> None:
        self._add(self._seccomp.ERRNO(errno), name, conditions)

    def hand_over(self, name: str) -> None:
        self._add(self._seccomp.NOTIFY, name, ())

    def bits(self, argument: int, mask: int, value: int) -> Any:
        return self._seccomp.Arg(argument, self._seccomp.MASKED_EQ, mask, value)

    def _add(self, action: int, name: str, conditions: tuple[Any, ...]) -> None:
        try:
            number = self._seccomp.resolve_syscall(self._seccomp.Arch.NATIVE, name)
        except ValueError:
            return  # a call that this libseccomp does not know stays at the default, ENOSYS
        self._program.add_rule(action, number, *conditions)


def _memory_and_processes(rules: _Rules, tier: str) -> None:
    if tier == "shared":
        rules.allow("sched_setaffinity", rules.bits(0, LOW_32_BITS, 0))
        rules.allow("setpriority", rules.bits(0, LOW_32_BITS, 0), rules.bits(1, LOW_32_BITS, 0))
    else:
        for name in ALLOWED_WITH_OWN_UID:
            rules.allow(name)
    rules.allow("clone", rules.bits(0, NAMESPACE_FLAGS | CLONE_PARENT, 0))
    rules.allow("mmap", rules.bits(3, MAP_HUGETLB, 0))
    rules.refuse(
        "mmap", rules.bits(3, MAP_HUGETLB, MAP_HUGETLB), errno=ENOMEM
    )  # in no figure of a process, and the host has few
    for resource in range(RLIMITS):
        if resource != RLIMIT_CORE:
            rules.allow("prlimit64", rules.bits(0, LOW_32_BITS, 0), rules.bits(1, LOW_32_BITS, resource))
            rules.allow("setrlimit", rules.bits(0, LOW_32_BITS, resource))
    rules.allow(
        "prlimit64", rules.bits(0, LOW_32_BITS, 0), rules.bits(1, LOW_32_BITS, RLIMIT_CORE), rules.bits(2, ALL_BITS, 0)
    )
    for option in PRCTL:
        rules.allow("prctl", rules.bits(0, LOW_32_BITS, option))
    for persona in PERSONALITY:
        rules.allow("personality", rules.bits(0, LOW_32_BITS, persona))


def _files(rules: _Rules, tier: str) -> None:
    """Nothing that carries a set-uid or set-gid bit is made: on a mount without nosuid it would stay behind."""
    if tier == "shared":
        for name in HANDED_OVER:
            rules.hand_over(name)
    for name, mode in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("creat", 1)):
        if tier == "shared" and name in HANDED_OVER:
            continue
        rules.allow(name, rules.bits(mode, SET_ID_BITS, 0))
        for bit in (0o4000, 0o2000):
            rules.refuse(name, rules.bits(mode, bit, bit))
    for name, flags in (("open", 1), ("openat", 2)):
        rules.allow(name, rules.bits(flags, CREATES, 0))
        rules.allow(name, rules.bits(flags + 1, SET_ID_BITS, 0))
    for name, mode in (("mknod", 1), ("mknodat", 2)):
        rules.allow(name, rules.bits(mode, FILE_TYPE | SET_ID_BITS, FIFO))
    for command in FCNTL:
        rules.allow("fcntl", rules.bits(1, LOW_32_BITS, command))
    for request in IOCTL:
        rules.allow("ioctl", rules.bits(1, LOW_32_BITS, request))


def _sockets(rules: _Rules, tier: str) -> None:
    families = {"full": (UNIX, INET, INET6), "visiting": (INET, INET6), "shared": ()}[tier]
    for name in ALLOWED_WITH_SOCKETS:
        rules.allow(name) if families else rules.refuse(name)
    for family in families:
        for kind, protocols in PROTOCOLS[family].items():
            for protocol in protocols:
                wanted = ((0, LOW_32_BITS, family), (1, SOCKET_TYPE, kind), (2, LOW_32_BITS, protocol))
                rules.allow("socket", *(rules.bits(*one) for one in wanted))
    if not families:
        rules.refuse("socket")
    for kind in (STREAM, SEQPACKET, DGRAM) if tier == "full" else (STREAM, SEQPACKET):
        rules.allow("socketpair", rules.bits(0, LOW_32_BITS, UNIX), rules.bits(1, SOCKET_TYPE, kind))


def _socket_options(rules: _Rules) -> None:
    """What programs set. Not the sizes of buffers, which are host memory that no limit of a process counts: asking for larger ones is no
    error, since Linux cuts what is too large without a word, and here the default is the most. Not urgent data, which AF_UNIX has for
    nobody (CVE-2025-38236). Of what can be asked, the first 64: a later one gives a handle to the process at the other end.
    """
    for level, options in ((IP, IP_OPTIONS), (IPV6, IPV6_OPTIONS), (TCP, TCP_OPTIONS), (UDP, UDP_OPTIONS)):
        for option in options:
            rules.allow("setsockopt", rules.bits(1, LOW_32_BITS, level), rules.bits(2, LOW_32_BITS, option))
    for level in (SOL_SOCKET, IP, IPV6, TCP, UDP):
        rules.allow("getsockopt", rules.bits(1, LOW_32_BITS, level), rules.bits(2, LOW_32_BITS & ~63, 0))
    for name, argument in SENT_FLAGS.items():
        rules.allow(name, rules.bits(argument, MSG_OOB, 0))
        rules.refuse(name, rules.bits(argument, MSG_OOB, MSG_OOB), errno=ENOTSUP)
    for option in SOCKET_OPTIONS:
        rules.allow("setsockopt", rules.bits(1, LOW_32_BITS, SOL_SOCKET), rules.bits(2, LOW_32_BITS, option))
    for option in BUFFER_SIZES:
        rules.refuse("setsockopt", rules.bits(1, LOW_32_BITS, SOL_SOCKET), rules.bits(2, LOW_32_BITS, option), errno=0)


def _library() -> ModuleType:
    """The package looks for the shared library when it is imported, so the import is where a host without it shows."""
    try:
        return importlib.import_module("pyseccomp")
    except (ImportError, OSError, RuntimeError) as error:
        raise HostError(
            "sandbox.unavailable",
            f"libseccomp, which compiles the sandbox's filter, cannot be loaded ({error})."
            " Install it: `apt-get install libseccomp2` (Debian, Ubuntu) or `dnf install libseccomp` (Fedora).",
        ) from error
