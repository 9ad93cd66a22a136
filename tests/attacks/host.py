"""The process that is attacked: it holds a secret in its environment, opens a sandbox, and runs one program a line of stdin.

    host.py WAY      WAY is control, full or confined; reads paths of programs, answers one JSON object a line

It is a subreaper, so whoever escapes a sandbox's tree becomes its child and is seen. Its own time and memory are judged too.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from agent_kernel.base.pool import interpreters, reachable_by_others
from corpus import HERE, Program, read
from judge import Scene, Seen, throw_away_uid
from sampler import Bounds, Sampler, children, tree
from ways import Boxed, Plain, remove

PR_SET_CHILD_SUBREAPER = 36
RAW = (HERE / "raw.py").read_bytes()


class Host:
    def __init__(self, way: str, base: Path) -> None:
        self.base, self.name = base, way
        uid = throw_away_uid()
        python = next(path for path in interpreters() if os.geteuid() != 0 or reachable_by_others(path))
        self.scene = Scene(base, python, uid)
        self.way: Boxed | Plain = (
            Plain(base, python, uid, self.scene.inherited) if way == "control" else Boxed(base, way)
        )
        self.sharing: Boxed | None = None
        self.beats = 0.0

    async def open(self) -> None:
        await self.way.open()
        self.scene.plant_in_state()

    async def close(self) -> None:
        known = set(children(os.getpid()))
        adopting = asyncio.ensure_future(self._adopt(known))
        if self.sharing:
            await self.sharing.close()
        await self.way.close()
        adopting.cancel()
        self.scene.close()

    async def _adopt(self, known: set[int]) -> None:
        """What an init does, which we are to the orphans of a zygote: a namespace ends only when all in it were reaped."""
        while True:
            self._reap(known)
            await asyncio.sleep(0.02)

    async def _way_for(self, program: Program) -> Boxed | Plain:
        """A kernel of its own, with a shared folder, for what is about shared folders."""
        if "share" not in program.header or isinstance(self.way, Plain):
            return self.way
        if self.sharing is None:
            self.sharing = Boxed(self.base / "sharing", self.name, share=self.scene.around / "shared")
            await self.sharing.open()
        return self.sharing

    async def attack(self, program: Program) -> dict[str, Any]:
        way = await self._way_for(program)
        self.scene.reset()
        timeout_s, memory_mb = (
            float(program.header.get("timeout", way.timeout_s)),
            int(program.header.get("memory", 128)),
        )
        heard: list[str] = []
        neighbour, more = await self._neighbour(way, heard) if "neighbour" in program.header else (None, {})
        limits = way.limits
        bounds = Bounds(
            memory_mb << 20,
            limits.processes_max,
            limits.descriptors_max,
            limits.workspace_bytes_max,
            limits.workspace_inodes_max,
        )
        sampler = Sampler(way.groups, bounds, way.places, host_view=way.host_view, sustained_s=way.sustained_s)
        if isinstance(way, Plain):
            way.mine = set(children(os.getpid()))
            way.enough = lambda: bool(set(sampler.found) & set(program.words("escape")))
            sampler.places = (way.base / self.scene.marker,)
        arguments = self.scene.arguments(memory_mb=memory_mb, way=self.name, **more)
        known = way.known() | set(children(os.getpid()))
        sampler.start()
        seen = await self._measured(way, program, arguments, timeout_s, memory_mb)
        sampler.stop()
        disturbed = await self._neighbour_ended(neighbour, heard)

        def strangers() -> list[int]:
            return [pid for one in set(children(os.getpid())) - known - way.known() for pid in tree(one)]

        found = await asyncio.to_thread(
            self.scene.findings,
            seen,
            limits=limits,
            timeout_s=timeout_s,
            grace_s=way.grace_s,
            patience_s=way.patience_s,
            strangers=strangers,
        )
        found |= sampler.found
        if disturbed:
            found["neighbour"] = disturbed
        if problem := await way.serves():
            found["kernel"] = f"serves nobody afterwards: {problem}"
        self._reap(known)
        return {"found": found, "ran": self._ran(program, seen), "stopped_by": seen.stopped_by, "exit_code": seen.exit_code,
                "stdout": seen.stdout[-3000:], "stderr": seen.stderr[-3000:], "lacks": _lacks(program, seen)}  # fmt: skip

    async def _measured(
        self, way: Boxed | Plain, program: Program, arguments: dict[str, object], timeout_s: float, memory_mb: int
    ) -> Seen:
        """The run, with how long the kernel's loop stood still meanwhile and how much memory this process took at most."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, worst = _memory("VmRSS"), 0.0

        async def beat() -> None:
            nonlocal worst
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.05)
                worst, last = max(worst, time.monotonic() - last - 0.05), time.monotonic()

        beating = asyncio.ensure_future(beat())
        began = time.monotonic()
        seen = await way.run(
            program,
            arguments,
            {"raw.py": RAW},
            timeout_s=timeout_s,
            **({} if isinstance(way, Plain) else {"memory_mb": memory_mb}),
        )
        seen.wall_s = seen.wall_s or time.monotonic() - began
        beating.cancel()
        if isinstance(way, Boxed):
            seen.stalled_s, seen.kernel_bytes = worst, _memory("VmHWM") - before
        return seen

    async def _neighbour(self, way: Boxed | Plain, heard: list[str]) -> tuple["asyncio.Task[Any]", dict[str, object]]:
        task, pid = await way.neighbour(
            [self.scene.secrets["neighbour"], self.scene.marker, f"n{self.scene.marker[2:]}"], heard
        )
        until = time.monotonic() + 30
        while not heard and time.monotonic() < until and not task.done():
            await asyncio.sleep(0.005)
        _, address, tmp, cwd = heard.pop(0).split()
        return task, {"neighbour": pid(), "neighbour_address": address, "neighbour_tmp": tmp, "neighbour_cwd": cwd}

    async def _neighbour_ended(self, task: "asyncio.Task[Any] | None", heard: list[str]) -> str:
        if task is None:
            return ""
        ended = "it ended" if task.done() else ""
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        return "; ".join([*heard, *filter(None, [ended])])

    def _ran(self, program: Program, seen: Seen) -> bool:
        """Came to its end, or was stopped in a way that the header names."""
        return (
            "TRIED" in seen.stdout.splitlines()
            or seen.stopped_by in program.words("stops")
            or str(seen.exit_code) in program.words("dies")
        )

    def _reap(self, known: set[int]) -> None:
        for pid in set(children(os.getpid())) - known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    async def benign(self, program: Program) -> dict[str, Any]:
        argv = program.header.get("argv", "").split()
        stdin = program.literal("stdin")
        result = await self.way.sandbox.run(  # type: ignore[union-attr]
            program.code,
            language=program.language,
            argv=argv,
            stdin=None if stdin is None else str(stdin),
            timeout_s=60,
        )
        got = {"stdout": result.stdout, "stderr": result.stderr, "exit": result.exit_code, "value": result.value,
               "files": sorted(file.path for file in result.files), "stopped_by": result.stopped_by}  # fmt: skip
        wanted = {"stdout": program.literal("stdout"), "exit": program.literal("exit") or 0, "value": program.literal("value"),
                  "files": sorted(program.words("files")), "stopped_by": None}  # fmt: skip
        wrong = {
            name: [got[name], value]
            for name, value in wanted.items()
            if got[name] != value and not (name == "stdout" and value is None)
        }
        return {"works": not wrong, "wrong": wrong, "stderr": result.stderr[-2000:]}


def living_children() -> list[int]:
    """After the dead have been reaped: they come to us, who are the subreaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return children(os.getpid())


def _lacks(program: Program, seen: Seen) -> list[str]:
    return [name for name in program.words("may lack") if f"LACKS {name}" in seen.stdout.splitlines()]


def _memory(name: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) << 10


async def serve(way: str, base: Path, answers: int) -> None:
    host = Host(way, base)
    await host.open()
    os.write(answers, b'{"open": true}\n')
    loop = asyncio.get_running_loop()
    try:
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            program = read(Path(line))
            kind = host.benign if program.path.parent.name == "benign" else host.attack
            try:
                answer = await kind(program)
            except Exception as error:  # noqa: BLE001  the judge's own failure must not look like a verdict
                answer = {"broken": f"{type(error).__name__}: {error}"}
            os.write(answers, json.dumps(answer).encode() + b"\n")
    finally:
        await host.close()
        os.write(answers, json.dumps({"left": left_behind(base)}).encode() + b"\n")


def left_behind(base: Path) -> list[str]:
    """Of a host that has closed: processes, mounts, and folders outside the state."""
    found = [
        str(path) for place in ("tmp", "state/scratch", "sharing/state/scratch") for path in (base / place).glob("*")
    ]
    until = time.monotonic() + 10
    while (alive := living_children()) and time.monotonic() < until:
        time.sleep(0.02)
    found += [f"process {pid}" for pid in alive]
    return found + [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(base) in line]


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    base = Path(tempfile.mkdtemp(prefix="corpus-", dir="/tmp"))
    base.chmod(0o755)
    (base / "tmp").mkdir()
    (base / "tmp").chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(base / "tmp")
    try:
        asyncio.run(serve(sys.argv[1], base, answers))
    finally:
        remove(base)


if __name__ == "__main__":
    main()
