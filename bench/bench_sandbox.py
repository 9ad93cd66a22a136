"""Spin-up of a sandbox as time to interactive: from the call until output and status are in the caller's hands.

    sandbox.run print(1)       a fresh sandbox for each call, every layer that this host can give
    python3 -I -S              the same program by a plain interpreter, no isolation at all
    empty process              the least that any process start costs here
    bubblewrap + python3       the usual way to isolate one command on Linux, where installed
    pydantic-monty             with --peers: a Python subset in a reused worker process; no isolation by the system, no full Python

Commands are waited for by a blocking call, their best case. Between two turns there is a pause, so that the tearing down of one (a
sandbox's tree is killed and reaped behind its reply) is not charged to the next.

Not here: throughput. A caller that never pauses pays the tearing down too; `sandbox.together` shows some of that.
"""

import importlib
import importlib.metadata
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from agent_kernel.base.limits import Limits
from agent_kernel.base.policy import Policy
from agent_kernel.base.ports import Ports
from agent_kernel.base.store import Store
from agent_kernel.sandbox import Sandbox
from agent_kernel.scheduler import Scheduler

from .controls import command, empty_process, nothing, plain_python
from .interleave import Absent, Case, Contender

__all__ = ["cases"]

CODE = "print(1)"

_BWRAP = shlex.split("--unshare-all --die-with-parent --new-session --proc /proc --dev /dev --tmpfs /tmp")


@asynccontextmanager
async def cases(folder: Path, *, peers: bool) -> AsyncIterator[list[Case]]:
    limits, ports, policy = Limits(), Ports.real(), Policy()
    scheduler = Scheduler(slots=limits.slots, queue_max=limits.queue_max)
    store = await Store.open(folder / "state", ports=ports, limits=limits, migrations=(), spawn=scheduler.spawn)
    sandbox = None
    try:
        sandbox = await Sandbox.open(store=store, ports=ports, limits=limits, policy=policy, scheduler=scheduler)
        with ExitStack() as stack:
            wanted = [_bubblewrap(), *([_monty(stack)] if peers else [])]
            present = [one for one in wanted if isinstance(one, Contender)]
            contenders = [_sandbox_run(sandbox), plain_python(), empty_process(), *present, nothing()]
            yield [
                Case(
                    "sandbox.alone",
                    "print(1) in a fresh sandbox, one caller: time until output and status are here",
                    contenders,
                    base="python3 -I -S",
                    passes=20,
                    pause_s=0.01,
                    absent=[one for one in wanted if isinstance(one, Absent)],
                    note=_layers(sandbox),
                ),
                Case(
                    "sandbox.together",
                    "print(1) in 8 fresh sandboxes started in one moment: time until each has answered",
                    [contenders[0], _pythons_at_once()],
                    base="python3 -I -S",
                    passes=4,
                    at_once=8,
                    pause_s=0.05,
                ),
            ]
    finally:
        if sandbox is not None:
            await sandbox.close()
        await store.close()
        await scheduler.close()


def _sandbox_run(sandbox: Sandbox) -> Contender:
    async def once() -> Any:
        return await sandbox.run(CODE)

    def wrong(result: Any) -> str | None:
        right = result.exit_code == 0 and result.stdout == "1\n" and result.stopped_by is None
        return None if right else f"exit {result.exit_code}, {result.stdout!r}, {result.stderr!r}, {result.stopped_by}"

    about = f"a fresh CPython process, tier {sandbox.tier}: {', '.join(sandbox.layers)}"
    return Contender("sandbox.run", "subject", about, once, wrong)


def _layers(sandbox: Sandbox) -> str:
    missing = f" Missing on this host: {', '.join(sandbox.degraded)}." if sandbox.degraded else ""
    return f"Tier {sandbox.tier}.{missing}"


def _pythons_at_once() -> Contender:
    """All started before the first is waited for: the best that a caller without a thread can do."""
    alone = plain_python()
    argv = [sys.executable, "-I", "-S", "-c", CODE]

    def start_all(count: int) -> list[tuple[int, bytes]]:
        started = [
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for _ in range(count)
        ]
        outputs = [process.communicate()[0] for process in started]
        return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]

    async def together(count: int) -> list[tuple[int, bytes]]:
        return start_all(count)

    about = f"{alone.about}; all started, then all collected, each counted until the last one ended"
    return Contender(alone.name, "control", about, alone.once, alone.wrong, together)


def _bubblewrap() -> Contender | Absent:
    """The flags are those of a careful user: every namespace, the system read-only, nothing of home, new session, dies with us."""
    bwrap = shutil.which("bwrap")
    get = "apt-get install bubblewrap   (dnf install bubblewrap)"
    if bwrap is None:
        return Absent("bubblewrap + python3", "bwrap is not installed", get)
    argv = [bwrap, *_BWRAP]
    roots = {Path(part) for part in ("/usr", "/bin", "/sbin", "/lib", "/lib64") if Path(part).exists()}
    interpreter = Path(sys.executable).resolve()
    prefix = Path(sys.base_prefix).resolve()
    for root in sorted(roots | ({prefix} if Path("/usr") not in prefix.parents and prefix != Path("/usr") else set())):
        argv += ["--ro-bind", str(root), str(root)]
    argv += [str(interpreter), "-I", "-S", "-c", CODE]
    version = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    about = f"{version} --unshare-all, system read-only, tmpfs /tmp; {interpreter.name} -I -S -c '{CODE}'; no seccomp filter, no limits"
    contender = command("bubblewrap + python3", "peer", about, argv)
    tried = subprocess.run(argv, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        why = f"{version} does not run here: {tried.stderr.strip().splitlines()[-1:] or tried.returncode}"
        return Absent(contender.name, why, "a kernel and container that allow user namespaces")
    return contender


def _monty(stack: ExitStack) -> Contender | Absent:
    """Paced and checked out for each call, as its pool is meant to be used."""
    try:
        monty = importlib.import_module("pydantic_monty")
    except ImportError:
        return Absent("pydantic-monty", "it is not installed", "pip install pydantic-monty")
    try:
        pool = stack.enter_context(monty.Monty())
    except OSError as error:
        return Absent("pydantic-monty", f"it does not start: {error}", "pip install pydantic-monty")

    def run() -> str:
        output = monty.CollectString()
        with pool.checkout() as session:
            session.feed_run(CODE, print_callback=output)
        return str(output.output)

    async def once() -> str:
        return run()

    version = importlib.metadata.version("pydantic-monty")
    about = (
        f"pydantic-monty {version}, pool checkout and run: a subset of Python, in a worker process that is used again;"
        " no isolation by the system"
    )
    return Contender("pydantic-monty", "peer", about, once, lambda text: None if text == "1\n" else repr(text))
