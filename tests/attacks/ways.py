"""Two ways of running a program: in the sandbox, and in the control, which isolates nothing and believes everything.

The control is what everybody writes first: a subprocess that inherits environment and descriptors, whose output is read whole, whose word on
descriptor 3 is taken for the result, and whose folder is collected by path. It has a time limit and bounds of its own so that the
machine survives; the attacks are made for them (200 MB, 100 processes, 80 MB of files).
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxes import Opened
from corpus import HERE, Program
from judge import Seen
from sampler import children, entries, processes_named, tree

LIMITS = {
    "workspace_bytes_max": 64 << 20, "workspace_inodes_max": 2000, "file_bytes_max": 32 << 20, "output_bytes_max": 2 << 20,
    "output_bytes_kept": 64 << 10, "processes_max": 48, "descriptors_max": 128, "collected_bytes_max": 4 << 20,
    "collected_files_max": 64,
}  # fmt: skip
OUTPUT_READ_MAX = 24 << 20
FILES_READ_MAX = 48 << 20
Words = dict[str, object]


def words(arguments: Words) -> list[str]:
    return [f"{name}={value}" for name, value in arguments.items()]


class Boxed:
    """The real thing, in one tier."""

    host_view = True

    def __init__(self, base: Path, tier: str, *, share: Path | None = None) -> None:
        self.tier, self.host_view = tier, tier == "confined"
        self.opened = Opened(base, tier, shared=(share,) if share else (), **LIMITS)
        self.limits = dataclasses.replace(self.opened.limits)
        self.places = [base / "tmp", base / "state" / "scratch"]
        self.grace_s, self.patience_s, self.sustained_s, self.timeout_s = 10.0, 10.0, 5.0, 60.0

    async def open(self) -> None:
        before = set(children(os.getpid()))
        self.sandbox = await self.opened.open()
        self.zygotes = {pid for pid in set(children(os.getpid())) - before if is_zygote(pid)}

    async def close(self) -> None:
        await self.opened.close()

    def groups(self) -> list[list[int]]:
        return [tree(pid) for zygote in zygotes() for pid in children(zygote)]

    def known(self) -> set[int]:
        return set(zygotes())

    async def run(self, program: Program, arguments: Words, files: dict[str, bytes], **limits: Any) -> Seen:
        notes: list[dict[str, Any]] = []
        given = program.literal("stdin")
        try:
            result = await self.sandbox.run(
                program.code, language=program.language, argv=words(arguments), files=files, on_note=notes.append,
                stdin=str(given) if given is not None else None, **limits,
            )  # fmt: skip
            kept = {file.path: await self._kept(file.uri) for file in result.files if file.uri}
        except Exception as error:  # noqa: BLE001  whatever it is, the kernel failed on what a guest did
            return Seen(raised=f"{type(error).__name__}: {error}")
        texts = [result.value or "", *(result.error or {}).values(), *(file.path for file in result.files), str(notes)]
        claims = {"tier": result.tier, "layers": result.layers, "usage": result.usage, "stopped_by": result.stopped_by}
        return Seen(result.stdout, result.stderr, texts, kept, claims, result.exit_code, result.stopped_by)

    async def _kept(self, uri: str) -> bytes:
        return (await self.sandbox.read(uri=uri)).data

    async def neighbour(self, arguments: list[str], heard: list[str]) -> "tuple[asyncio.Task[Any], Callable[[], int]]":
        code = (HERE / "neighbour.py").read_text(encoding="utf8")
        running = self.sandbox.run(
            code, argv=arguments, timeout_s=60, on_note=lambda note: heard.append(note.get("log", ""))
        )
        return asyncio.ensure_future(running), lambda: max(processes_named(arguments[2]))

    async def serves(self) -> str:
        try:
            async with asyncio.timeout(30):
                result = await self.sandbox.run("6 * 7")
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__}: {error}"
        return "" if result.value == "42" else f"6 * 7 gave {result.value}, {result.stderr[-200:]}"


def is_zygote(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"zygote.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def zygotes() -> list[int]:
    return [pid for pid in children(os.getpid()) if is_zygote(pid)]


class Plain:
    """The control."""

    tier = "control"
    host_view = True

    def __init__(self, base: Path, python: str, uid: int, inherited: int) -> None:
        self.base, self.python, self.uid, self.inherited = base / "plain", python, uid, inherited
        self.limits = dataclasses.replace(Opened(base, None, **LIMITS).limits)
        self.grace_s, self.patience_s, self.sustained_s, self.timeout_s = 1.5, 0.2, 1.5, 10.0
        self.running: list[int] = []
        self.mine: set[int] = set()
        self.places: list[Path] = []

    async def open(self) -> None:
        self.base.mkdir()

    async def close(self) -> None:
        remove(self.base)

    def groups(self) -> list[list[int]]:
        strangers = set(children(os.getpid())) - self.mine - set(self.running)
        return [[pid for one in (root, *strangers) for pid in tree(one)] for root in self.running]

    def known(self) -> set[int]:
        return set(self.mine)

    def place(self, name: str) -> Path:
        folder = self.base / name
        (folder / "tmp").mkdir(parents=True)
        for one in (folder, folder / "tmp"):
            if self.uid:
                os.chown(one, self.uid, self.uid)
        return folder

    async def run(self, program: Program, arguments: Words, files: dict[str, bytes], **limits: Any) -> Seen:
        folder = self.place(str(arguments["marker"]))
        for name, data in files.items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o644)
        script = folder / f"main{program.path.suffix}"
        script.write_text(program.code, encoding="utf8")
        script.chmod(0o644)
        self.places = [folder]
        seen = await asyncio.to_thread(self._run, program, folder, script, words(arguments), limits["timeout_s"])
        await asyncio.to_thread(self._collect, folder, set(files) | {script.name}, seen)
        remove(folder)
        return seen

    def start(
        self, command: list[str], folder: Path, uid: int, stdin: object
    ) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        process = subprocess.Popen(
            [self.python, "-I", "-S", str(HERE / "launch.py"), str(uid), str(theirs.fileno()), *command],
            cwd=folder, env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            close_fds=False, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        return process, ours

    def _run(self, program: Program, folder: Path, script: Path, arguments: list[str], timeout_s: float) -> Seen:
        uid = 0 if program.header.get("as") == "root" else self.uid
        interpreter = [self.python, "-s"] if program.language == "python" else ["/bin/bash"]
        stdin = program.literal("stdin")
        began = time.monotonic()
        process, frames = self.start([*interpreter, str(script), *arguments], folder, uid, stdin)
        self.running = [process.pid]
        if stdin is not None:
            assert process.stdin
            process.stdin.write(str(stdin).encode())
            process.stdin.close()
        seen = Seen()
        parts: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        readers = [
            threading.Thread(target=_read_whole, args=(getattr(process, name).fileno(), data), daemon=True)
            for name, data in parts.items()
        ]
        ended = threading.Event()
        readers.append(threading.Thread(target=_believe, args=(frames, seen, ended), daemon=True))
        for reader in readers:
            reader.start()
        while process.poll() is None and not ended.is_set() and not self.enough():
            if time.monotonic() - began > timeout_s + self.grace_s + 0.1:
                break
            time.sleep(0.005)
        seen.wall_s = time.monotonic() - began
        if not ended.is_set():  # the believed END leaves the process to itself, as a naive wrapper does
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for reader in readers:
            reader.join(0.3)
        seen.exit_code = process.poll()
        seen.stdout, seen.stderr = (bytes(parts[name]).decode(errors="replace") for name in ("stdout", "stderr"))
        self.running = []
        frames.close()
        return seen

    enough: Callable[[], bool] = staticmethod(lambda: False)

    def _collect(self, folder: Path, given: set[str], seen: Seen) -> None:
        """By path, everything that is called a file; what hangs is left after a second."""

        def work() -> None:
            with contextlib.suppress(RecursionError):
                read_all()

        def read_all() -> None:
            room = FILES_READ_MAX
            for place, _, names in os.walk(folder, followlinks=True):
                for name in names:
                    if name in given or room <= 0 or len(seen.files) > 200:
                        continue
                    with contextlib.suppress(OSError), open(f"{place}/{name}", "rb") as file:
                        data = file.read(room)
                        room -= len(data)
                        seen.files[os.path.relpath(f"{place}/{name}", folder)] = data
            seen.texts += list(seen.files)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(1.0)
        if worker.is_alive():
            seen.hung = True
            fifos = [folder / name for name, facts in entries(folder) if stat.S_ISFIFO(facts.st_mode)]
            for fifo in (*fifos, self.base.parent / "around" / "shared" / "fifo"):  # let the thread go
                os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    async def neighbour(self, arguments: list[str], heard: list[str]) -> "tuple[asyncio.Task[Any], Callable[[], int]]":
        folder = self.place("neighbour-" + arguments[1])
        process, frames = self.start(
            [self.python, "-s", str(HERE / "neighbour.py"), *arguments], folder, self.uid, None
        )
        self.mine.add(process.pid)

        async def live() -> int:
            assert process.stdout
            os.set_blocking(process.stdout.fileno(), False)
            try:
                while process.poll() is None:
                    with contextlib.suppress(BlockingIOError):
                        heard.extend(os.read(process.stdout.fileno(), 65536).decode().splitlines())
                    await asyncio.sleep(0.01)
            finally:
                process.kill()
                process.wait()
                frames.close()
            return process.returncode

        return asyncio.ensure_future(live()), lambda: process.pid

    async def serves(self) -> str:
        return ""


def remove(folder: Path) -> None:
    """Also what is too deep for a recursion."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False, stderr=subprocess.DEVNULL)


def _read_whole(descriptor: int, into: bytearray) -> None:
    with contextlib.suppress(OSError):
        while len(into) < OUTPUT_READ_MAX and (data := os.read(descriptor, 1 << 16)):
            into += data


def _believe(frames: socket.socket, seen: Seen, ended: threading.Event) -> None:
    """Every word of the guest is a field of the result."""
    held = bytearray()
    with contextlib.suppress(OSError, ValueError, struct.error):
        while data := frames.recv(1 << 16):
            held += data
            while len(held) >= 9:
                size, kind, _ = struct.unpack_from("<IBI", held)
                if size > OUTPUT_READ_MAX:
                    seen.raised = f"a frame of {size} bytes"
                    return
                if len(held) < 9 + size:
                    break
                payload = bytes(held[9 : 9 + size])
                del held[: 9 + size]
                if kind == 10:
                    try:
                        said = json.loads(payload)
                        seen.claims |= said
                        seen.texts += [str(said.get("value", "")), *map(str, dict(said.get("error", {})).values())]
                    except Exception as error:  # noqa: BLE001
                        seen.raised = f"{type(error).__name__}"
                    ended.set()
                elif kind == 8:
                    seen.texts.append(payload.decode(errors="replace"))
