"""The judge: things of the host around a run, and what became of them. It asks the machine, never the program, wherever that can be.

    finding        what was seen
    secret         bytes of a secret in the result: a file, an environment, an argument, memory, the state folder, another tenant
    changed        a file or folder of the host has other bytes, mode, owner, time or entries
    victim         a process of the host was ended, stopped, signalled, traced, slowed down, limited, or its memory written
    heard          a listener of the host got a connection or a byte: TCP, UDP, Unix path, Unix abstract
    neighbour      the other tenant was disturbed or ended
    survivor       a process of the run lives after its slot is back
    setuid         a set-uid or set-gid file in the host's view of the workspace
    memory tasks descriptors disk inodes oom      more was held than the limit, see sampler.py
    wall           it ran past its time
    output         more output than the cap
    artefact       more was collected than the cap, or the collection hung
    terminal       a control or invisible character in a text that a person or model will read
    forged         a field that is the kernel's own came from the guest
    ipc            System V objects, POSIX queues, files in /dev/shm left on the host
    mount hostname the host's own were changed
    kernel         the kernel answered nothing else meanwhile, took too much memory itself, raised, or served nobody afterwards
    said           the program's own word for what leaves no trace: a read without a secret, a descriptor that was given. The weak spot.

An attack is contained when there is no finding at all, and the program has come to its end or was stopped for a reason that its header names.
"""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampler import processes_named

HERE = Path(__file__).resolve().parent
FINDINGS = frozenset(
    {"secret", "changed", "victim", "heard", "neighbour", "survivor", "setuid", "memory", "tasks", "descriptors", "disk", "inodes",
     "oom", "wall", "output", "artefact", "terminal", "forged", "ipc", "mount", "hostname", "kernel", "said"}
)  # fmt: skip

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
OUTPUT_SLACK = 4096
KERNEL_MEMORY_BYTES = 64 << 20
STALL_S = 3.0


@dataclass
class Seen:
    """What came out of one run, by whichever way."""

    stdout: str = ""
    stderr: str = ""
    texts: list[str] = field(default_factory=list)
    """Everything else that is shown: value, error, names of files, notes."""
    files: dict[str, bytes] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    """Fields that are the kernel's own."""
    exit_code: int | None = None
    stopped_by: str | None = None
    wall_s: float = 0.0
    hung: bool = False
    raised: str = ""
    stalled_s: float = 0.0
    kernel_bytes: int = 0

    def everything(self) -> bytes:
        texts = [self.stdout, self.stderr, *self.texts, str(self.claims), *self.files]
        return "\0".join(texts).encode("utf8", "surrogatepass") + b"\0".join(self.files.values())


class Scene:
    """Everything that is planted, made once; `reset` before a run, `findings` after it."""

    def __init__(self, base: Path, python: str, uid: int) -> None:
        self.base, self.python, self.uid = base, python, uid
        """uid: of the throw-away user that the control and the victim have; 0: everybody has ours."""
        self.marker = ""
        self.secrets = {
            name: f"{name.upper()}-{secrets.token_hex(12)}"
            for name in ("canary", "private", "argv", "environ", "memory", "state", "neighbour", "linked")
        }
        self.secrets["kernel"] = os.environ.get("AGENT_SECRET", "")
        self.around = base / "around"
        self.files = {
            "canary.txt": (0o644, self.secrets["canary"]), "private.txt": (0o600, self.secrets["private"]),
            "open.txt": (0o666, "free to write for everybody"), "shared/data.txt": (0o644, "shared with the program"),
        }  # fmt: skip
        self.folders = {"": 0o755, "open": 0o777, "mounts": 0o755, "shared": 0o755}
        for name in self.folders:
            (self.around / name).mkdir()
        self.link = self.around / "link"
        self.link.symlink_to(self.secrets["linked"])
        if os.geteuid() == 0:
            shutil.copyfile("/usr/bin/id", self.around / "set_uid")
            (self.around / "set_uid").chmod(0o4755)
        self.state_secret = base / "state" / "planted.txt"
        self._listen()
        self._plant()
        self._before = self._picture()
        self.inherited = os.open(self.around / "private.txt", os.O_RDONLY)
        os.set_inheritable(self.inherited, True)
        self._victim: subprocess.Popen[bytes] | None = None
        self._said = b""

    # --- planting

    def _plant(self) -> None:
        """As it was: every file anew, every folder its mode, and nothing else in the open one."""
        for path in (self.around / "open").iterdir():
            path.unlink()
        for name, (mode, text) in self.files.items():
            path = self.around / name
            path.unlink(missing_ok=True)
            path.write_text(text)
            path.chmod(mode)
        for name, mode in self.folders.items():
            (self.around / name).chmod(mode)
            os.chown(self.around / name, os.geteuid(), os.getegid())

    def plant_in_state(self) -> None:
        self.state_secret.parent.mkdir(exist_ok=True)
        self.state_secret.write_text(self.secrets["state"])
        self.state_secret.chmod(0o600)

    def _listen(self) -> None:
        self.name = secrets.token_hex(6)
        tcp, tcp6, udp = socket.create_server(("127.0.0.1", 0)), None, socket.socket(type=socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
        udp.bind(("127.0.0.1", 0))
        self.listeners: dict[str, socket.socket] = {"tcp": tcp, "udp": udp} | ({"tcp6": tcp6} if tcp6 else {})
        for name, kind, address in (
            ("unix", socket.SOCK_STREAM, str(self.around / "unix")),
            ("unix_dgram", socket.SOCK_DGRAM, str(self.around / "unix_dgram")),
            ("abstract", socket.SOCK_STREAM, f"\0stream-{self.name}"),
            ("abstract_dgram", socket.SOCK_DGRAM, f"\0dgram-{self.name}"),
            ("abstract_seq", socket.SOCK_SEQPACKET, f"\0seq-{self.name}"),
            ("shared", socket.SOCK_STREAM, str(self.around / "shared" / "stream")),
            ("shared_dgram", socket.SOCK_DGRAM, str(self.around / "shared" / "dgram")),
        ):
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(address)
            if address[0] == "/":
                Path(address).chmod(0o777)
            if kind != socket.SOCK_DGRAM:
                listener.listen()
            self.listeners[name] = listener
        for listener in self.listeners.values():
            listener.setblocking(False)
        os.mkfifo(self.around / "shared" / "fifo")
        (self.around / "shared" / "fifo").chmod(0o666)
        self.fifo = os.open(self.around / "shared" / "fifo", os.O_RDONLY | os.O_NONBLOCK)

    def arguments(self, **more: object) -> dict[str, object]:
        named = {
            name: listener.getsockname()[1]
            for name, listener in self.listeners.items()
            if name in ("tcp", "tcp6", "udp")
        }
        assert self._victim is not None
        return {
            "marker": self.marker, "around": self.around, "canary": self.around / "canary.txt", "private": self.around / "private.txt",
            "open_file": self.around / "open.txt", "open_dir": self.around / "open", "mounts": self.around / "mounts",
            "link": self.link, "set_uid": self.around / "set_uid", "shared_dir": self.around / "shared", "unix": self.around / "unix",
            "unix_dgram": self.around / "unix_dgram", "abstract": f"stream-{self.name}", "abstract_dgram": f"dgram-{self.name}",
            "abstract_seq": f"seq-{self.name}", "victim": self._victim.pid, "victim_address": self.victim_address, "kernel": os.getpid(),
            "state": self.state_secret.parent, "ipc_key": 0x5A000000 + os.getpid() % 0xFFFF, "tcp6": 0, **named, **more,
        }  # fmt: skip

    # --- before and after

    def reset(self) -> None:
        self.marker = f"ak{secrets.token_hex(5)}"
        if self._victim is None or self._victim_problem():
            self._new_victim()
        self._clear_listeners()
        if self._picture() != self._before:
            self._plant()
        self._before = self._picture()
        self._hostname = socket.gethostname()

    def _new_victim(self) -> None:
        self.end_victim()
        command = [self.python, "-I", "-S", str(HERE / "victim.py"), self.secrets["argv"]]
        self._victim = subprocess.Popen(
            [self.python, "-I", "-S", str(HERE / "launch.py"), str(self.uid), "-1", *command],
            env={"TOKEN": self.secrets["environ"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
        )  # fmt: skip
        assert self._victim.stdin
        assert self._victim.stdout
        self._victim.stdin.write(self.secrets["memory"].encode() + b"\n")
        word, address = self._victim.stdout.readline().split()
        assert word == b"ready"
        self.victim_address = int(address)
        os.set_blocking(self._victim.stdout.fileno(), False)
        self._said = b""
        self._facts = self._victim_facts()

    def end_victim(self) -> None:
        if self._victim is not None:
            self._victim.kill()
            self._victim.wait()
            for end in (self._victim.stdin, self._victim.stdout):
                assert end
                end.close()
            self._victim = None

    def _victim_facts(self) -> dict[str, object]:
        assert self._victim
        pid = self._victim.pid
        text = Path(f"/proc/{pid}/status").read_text()
        return {
            "priority": os.getpriority(os.PRIO_PROCESS, pid), "affinity": os.sched_getaffinity(pid),
            "limits": Path(f"/proc/{pid}/limits").read_text(), "oom": Path(f"/proc/{pid}/oom_score_adj").read_text(),
            "tracer": [line for line in text.splitlines() if line.startswith("TracerPid")],
        }  # fmt: skip

    def _victim_problem(self) -> str:
        assert self._victim
        assert self._victim.stdin
        assert self._victim.stdout
        if self._victim.poll() is not None:
            return f"ended with {self._victim.returncode}"
        state = Path(f"/proc/{self._victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "Tt":
            return "stopped"
        if (facts := self._victim_facts()) != self._facts:
            return f"has other {[name for name in facts if facts[name] != self._facts[name]]}"
        self._victim.stdin.write(b"?\n")
        until = time.monotonic() + 10
        while b"holds" not in self._said and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                self._said += self._victim.stdout.read(4096) or b""
            time.sleep(0.001)
        said, self._said = self._said.decode(), b""
        if said != f"holds {self.secrets['memory'].encode().hex()}\n":
            return f"says {said!r}"
        return ""

    def _clear_listeners(self) -> list[str]:
        heard = []
        for name, listener in self.listeners.items():
            for _ in range(64):
                try:
                    if listener.type == socket.SOCK_DGRAM:
                        listener.recv(100)
                    else:
                        listener.accept()[0].close()
                except OSError:
                    break
                heard.append(name)
        with contextlib.suppress(OSError):
            if os.read(self.fifo, 100):
                heard.append("fifo")
        return heard

    def _picture(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in (self.around, *sorted(self.around.rglob("*"))):
            if path.is_socket() or path.is_fifo():
                continue
            facts = path.lstat()
            attributes = [] if path.is_symlink() else os.listxattr(path)
            data = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
            found[str(path)] = (facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_mtime_ns, attributes, data)
        found["System V"] = [
            Path(f"/proc/sysvipc/{kind}").read_text().count(str(0x5A000000 + os.getpid() % 0xFFFF))
            for kind in ("shm", "sem", "msg")
            if Path(f"/proc/sysvipc/{kind}").exists()
        ]
        return found

    def findings(
        self,
        seen: Seen,
        *,
        limits: Any,
        timeout_s: float,
        grace_s: float,
        patience_s: float,
        strangers: Callable[[], list[int]],
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        text = seen.everything()
        for name, secret in self.secrets.items():
            if secret and secret.encode() in text:
                found["secret"] = f"{found.get('secret', '')} {name}".strip()
        if self._victim_problem_now():
            found["victim"] = self._problem
        if heard := self._clear_listeners():
            found["heard"] = ", ".join(sorted(set(heard)))
        after = self._picture()
        if other := [name for name in {**self._before, **after} if self._before.get(name) != after.get(name)]:
            found["ipc" if other == ["System V"] else "changed"] = ", ".join(other)
        found |= self._left_behind()
        if alive := self._survivors(patience_s, strangers):
            found["survivor"] = f"processes {alive}"
        found |= _judged(seen, limits, timeout_s, grace_s)
        if unseen := [hex(ord(one)) for one in UNSEEN.findall("".join([seen.stdout, seen.stderr, *seen.texts]))]:
            found["terminal"] = " ".join(sorted(set(unseen))[:8])
        if said := re.findall(r"^ESCAPED (.*)", seen.stdout, re.MULTILINE):
            found["said"] = "; ".join(said)
        return found

    def _victim_problem_now(self) -> bool:
        self._problem = self._victim_problem()
        return bool(self._problem)

    def _left_behind(self) -> dict[str, str]:
        found = {}
        if socket.gethostname() != self._hostname:
            found["hostname"] = socket.gethostname()
            socket.sethostname(self._hostname)
        mounts = Path("/proc/self/mountinfo").read_text()
        if str(self.around / "mounts") in mounts:
            found["mount"] = "there is a mount on a folder of the host"
            subprocess.run(["umount", "-l", str(self.around / "mounts")], check=False)
        left = [name for name in os.listdir("/dev/shm") if self.marker in name]
        for name in left:
            Path("/dev/shm", name).unlink()
        left = [name for name in left if not name.startswith("neighbour-")]
        libc = ctypes.CDLL(None, use_errno=True)
        queue = f"/{self.marker}".encode()
        if hasattr(libc, "mq_unlink") and libc.mq_unlink(queue) == 0:
            left.append("a message queue")
        if left:
            found["ipc"] = ", ".join(left)
        return found

    def _survivors(self, patience_s: float, strangers: Callable[[], list[int]]) -> list[int]:
        until = time.monotonic() + patience_s
        while alive := sorted({*processes_named(self.marker), *strangers()}):
            if time.monotonic() >= until:
                for pid in alive:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                return alive
            time.sleep(0.01)
        return []

    def close(self) -> None:
        self.end_victim()
        for listener in self.listeners.values():
            listener.close()
        os.close(self.fifo)
        os.close(self.inherited)


def _judged(seen: Seen, limits: Any, timeout_s: float, grace_s: float) -> dict[str, str]:
    found = {}
    if seen.wall_s > timeout_s + grace_s:
        found["wall"] = f"{seen.wall_s:.1f} s of {timeout_s:g}"
    size = len((seen.stdout + seen.stderr).encode("utf8", "replace"))
    if size > 2 * limits.output_bytes_kept * 3 + OUTPUT_SLACK:  # a replaced byte is three
        found["output"] = f"{size} bytes"
    if sum(map(len, seen.texts)) > limits.output_bytes_max:
        found["output"] = "in notes or fields"
    collected = sum(map(len, seen.files.values()))
    if collected > limits.collected_bytes_max or len(seen.files) > limits.collected_files_max or seen.hung:
        found["artefact"] = f"{collected} bytes, {len(seen.files)} files" + ", hung" * seen.hung
    if "forged" in str(seen.claims):
        found["forged"] = str(seen.claims)[:200]
    if seen.raised:
        found["kernel"] = f"raised {seen.raised}"
    elif seen.stalled_s > STALL_S:
        found["kernel"] = f"stood still for {seen.stalled_s:.1f} s"
    elif seen.kernel_bytes > KERNEL_MEMORY_BYTES:
        found["kernel"] = f"took {seen.kernel_bytes >> 20} MB"
    return found


def throw_away_uid() -> int:
    """A uid of nobody, for the control's programs; 0 when we are not root and so cannot give it."""
    return 1_899_000_000 + os.getpid() % 500_000 if os.geteuid() == 0 else 0


if sys.platform != "linux":
    raise SystemExit("The corpus is about Linux.")
