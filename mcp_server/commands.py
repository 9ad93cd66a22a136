"""The command `agent-kernel`. Exit status: 0 done, 1 the thing failed, 2 wrong usage.

    mcp            MCP on stdio for a host, by the kernel of the state folder (bridge.py); --standalone: the kernel in this process
    serve          the kernel of a state folder, in the foreground;  status, stop: the one that runs
    doctor         what this machine can isolate, what is missing and how to get it
    backup FILE    the state folder as one file, while a kernel runs or not;  restore FILE: a new folder from it;  verify: is it whole
    audit          what sandboxes did, for whom; --verify: whether that record is whole
    items          what waits for a person;  approve ITEM, deny ITEM: the answer
    install HOST   the config entry for an MCP host, printed or written
    skill          validate, list, approve, history, import, export (skill_cli.py)
    memory         import, export, stats, quarantine (memory_cli.py)
    demo, conformance, bench    the tour, the suite, the measurements (`agent-kernel VERB --help`)

State folder: --state, else AGENT_KERNEL_HOME, else XDG_STATE_HOME/agent-kernel, else ~/.local/state/agent-kernel. Nothing is
written elsewhere, but for `install --write`, `backup FILE` and `memory export FILE`. stdout of `mcp` carries protocol only: it is claimed before anything heavy is imported,
and each verb imports what it needs when it runs.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent_kernel.base import system
from agent_kernel.base.errors import HostError, KernelError
from agent_kernel.base.policy import TOOLSETS, Folder, Grants

from .hello import VERSION
from .options import idle_option, mcp_options, names, operator_options, state_option
from .places import printable, state_folder
from .stdio import claim

__all__ = ["main", "state_folder"]

ELSEWHERE = {
    "skill": ("agent_kernel_mcp.skill_cli", ""),
    "memory": ("agent_kernel_mcp.memory_cli", ""),
    "demo": ("agent_kernel_mcp.tour", ""),
    "conformance": ("agent_kernel_conformance.__main__", ""),
    "bench": ("agent_kernel_bench.__main__", "bench"),
}
"""Verbs with a command line of their own: module, and the extra that its dependencies are in."""
NEED_SANDBOXES = ("demo", "bench")
ELSEWHERE_HELP = {
    "skill": "validate, list, approve, import, export skills",
    "memory": "import, export, look through what is remembered", "demo": "the tour", "conformance": "the suite", "bench": "the measurements",
}  # fmt: skip


READY = 3
"""As in bridge.py."""
STOP_S = 30.0

Ask = Callable[..., Any]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] and arguments[0] in ELSEWHERE:
            return _elsewhere(arguments[0], arguments[1:])
        asked = _parser().parse_args(arguments)
        return int(asked.act(asked))
    except KernelError as error:
        print(f"agent-kernel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


# --- the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel", description="Sandbox, durable runs, memory and skills over MCP.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"agent-kernel {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    state = state_option()
    operator = operator_options()

    mcp = verbs.add_parser("mcp", parents=[mcp_options()], add_help=False, help="serve MCP on stdio")
    mcp.set_defaults(act=_mcp)

    serve = verbs.add_parser(
        "serve", parents=[state, operator, idle_option(0.0)], help="run the kernel that hosts share"
    )
    serve.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    serve.set_defaults(act=_serve)

    doctor = verbs.add_parser("doctor", parents=[state], help="what this machine can isolate, and what is missing")
    status = verbs.add_parser("status", parents=[state], help="the kernel that runs on a state folder")
    items = verbs.add_parser("items", parents=[state], help="what waits for a person")
    stop = verbs.add_parser("stop", parents=[state], help="end the kernel that runs on a state folder")
    stop.set_defaults(act=_stop)
    for verb, act in ((doctor, _doctor), (status, _status), (items, _items)):
        verb.add_argument("--json", action="store_true", help="one JSON object on stdout")
        verb.set_defaults(act=act)

    for name, act, text in (
        ("backup", _backup, "the state folder as one file"), ("restore", _restore, "a state folder from a backup"),
    ):  # fmt: skip
        verb = verbs.add_parser(name, parents=[state], help=text)
        verb.add_argument("file", metavar="FILE", type=Path)
        verb.set_defaults(act=act)
    verify = verbs.add_parser("verify", parents=[state], help="is the state folder whole: file, journal, audit")
    verify.add_argument("--json", action="store_true", help="one JSON object on stdout")
    verify.set_defaults(act=_verify)

    audit = verbs.add_parser("audit", parents=[state], help="what sandboxes did, for whom, and what became of it")
    _audit_options(audit)

    for name in ("approve", "deny"):
        verb = verbs.add_parser(name, parents=[state], help=f"{name} an item")
        verb.add_argument("item", metavar="ITEM", help="itm_..., as `agent-kernel items` shows it")
        verb.add_argument("--note", help="kept with the decision")
        verb.add_argument("--yes", action="store_true", help="do not ask again at a terminal")
        verb.set_defaults(act=_decide)

    install = verbs.add_parser("install", parents=[state, operator], help="the config entry for an MCP host")
    install.add_argument("host", metavar="HOST", help="claude-code, claude-desktop, cursor, goose, vscode or zed")
    install.add_argument("--standalone", action="store_true", help="an entry whose host has a kernel of its own")
    install.add_argument("--write", action="store_true", help="merge the entry into the host's file (a copy is kept)")
    install.add_argument("--file", metavar="FILE", help="the host's file, where it is not at its usual place")
    install.set_defaults(act=_install)

    for name in ELSEWHERE:
        verbs.add_parser(name, help=ELSEWHERE_HELP[name])
    return parser


def _audit_options(audit: argparse.ArgumentParser) -> None:
    audit.add_argument("--since", metavar="T", help="2026-11-23 or 2026-11-23T14:08:41Z")
    audit.add_argument("--until", metavar="T")
    audit.add_argument("--sandbox", metavar="ID", help="sbx_...: events of that sandbox")
    audit.add_argument("--run", metavar="ID", help="run_...: events of that run's sandboxes")
    audit.add_argument("--limit", metavar="N", type=_count, default=100, help="the newest N (default 100)")
    audit.add_argument("--verify", action="store_true", help="is the chain of events whole; status 1 when it is not")
    audit.add_argument("--json", action="store_true", help="one JSON object a line")
    audit.set_defaults(act=_audit)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of events")
    return int(text)


# --- the verbs


def _mcp(asked: argparse.Namespace) -> int:
    parent = os.getppid()  # now: it may be gone by the time the imports are done
    source, sink = claim()
    for option, given in (("--allow-host", asked.allow_host), ("--allow-packages", asked.allow_packages)):
        if given:
            print(
                f"agent-kernel: {option} has no effect yet: sandboxes have no network and the standard library only.",
                file=sys.stderr,
            )
    grants = Grants(
        folders=tuple(Folder.parse(text) for text in asked.folder),
        hosts=tuple(asked.allow_host),
        packages=asked.allow_packages,
        approve_in_host=asked.approve_in_host,
    )
    serve = importlib.import_module("agent_kernel_mcp.serve")
    options = serve.Options(
        state_folder(asked.state),
        grants,
        asked.agent,
        asked.tier,
        tuple(asked.memory_profile),
        _toolsets(asked.toolsets),
    )
    with asyncio.Runner(loop_factory=system.event_loop()) as runner:
        runner.run(serve.serve_stdio(options, source, sink, parent))
    return 0


def _toolsets(text: str) -> tuple[str, ...]:
    asked = tuple(names(text))
    for name in asked:
        if name not in TOOLSETS:
            raise HostError("config.invalid", f"--toolsets {name!r}: there are {', '.join(TOOLSETS)}.")
    return asked


def _serve(asked: argparse.Namespace) -> int:
    if not system.ISOLATES:
        raise HostError(
            "host.unsupported", f"Hosts share a kernel on Linux only, this is {system.NAME}. Use `agent-kernel mcp`."
        )
    serve = importlib.import_module("agent_kernel_mcp.serve")
    options = serve.Options(state_folder(asked.state), tier=asked.tier)
    say = _ready if asked.detached else _listening
    try:
        with asyncio.Runner(loop_factory=system.event_loop()) as runner:
            runner.run(serve.serve_shared(options, asked.idle_exit, say))
    except KernelError as error:
        if asked.detached:
            say({"error": str(error)})
        raise
    return 0


def _listening(said: Mapping[str, Any]) -> None:
    print(f"agent-kernel: hosts may come (pid {said['ok']}).", file=sys.stderr)


def _ready(said: Mapping[str, Any]) -> None:
    """To the bridge that started us, by the descriptor that it left open."""
    with contextlib.suppress(OSError):
        os.write(READY, json.dumps(said).encode() + b"\n")
        os.close(READY)


def _stop(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    control = importlib.import_module("agent_kernel_mcp.control")
    found = control.ask(folder, "stop")
    if found is None:
        print(f"No kernel answers on {folder}.", file=sys.stderr)
        return 0
    with contextlib.suppress(ProcessLookupError):
        gone = os.pidfd_open(found["pid"])
        ended, _, _ = select.select([gone], [], [], STOP_S)
        os.close(gone)
        if not ended:
            raise HostError(
                "kernel.busy",
                f"The kernel with pid {found['pid']} has not ended within {STOP_S:g} s. `kill {found['pid']}` ends it at once; nothing that was answered is lost.",
            )
    return 0


def _elsewhere(verb: str, arguments: list[str]) -> int:
    module, extra = ELSEWHERE[verb]
    if verb in NEED_SANDBOXES and not system.ISOLATES:
        raise HostError("host.unsupported", f"`agent-kernel {verb}` runs sandboxes. {system.NO_SANDBOX}")
    try:
        part = importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = f"pip install 'agent-kernel[{extra}]'" if extra else "pip install --force-reinstall agent-kernel"
        raise HostError(
            "install.incomplete", f"`agent-kernel {verb}` needs {error.name}, which is not installed. Run: {hint}"
        ) from None
    return int(part.main(arguments))


@contextlib.contextmanager
def _asking(folder: Path) -> Iterator[Ask]:
    """Questions to the kernel of that folder: the one that runs, else one that is opened for as long as the block lasts."""
    control = importlib.import_module("agent_kernel_mcp.control")
    if control.ask(folder, "status") is not None:
        yield lambda op, **fields: control.ask(folder, op, **fields)
        return
    serve = importlib.import_module("agent_kernel_mcp.serve")
    kernel = importlib.import_module("agent_kernel").Kernel
    with asyncio.Runner() as runner:
        opening = kernel.open(folder)
        opened = runner.run(_entered(opening))
        try:
            yield lambda op, **fields: runner.run(serve.answer(opened, op, fields))
        finally:
            runner.run(_left(opening))


async def _entered(opening: Any) -> Any:
    return await opening.__aenter__()


async def _left(opening: Any) -> None:
    await opening.__aexit__(None, None, None)


def _status(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    control = importlib.import_module("agent_kernel_mcp.control")
    found = control.ask(folder, "status")
    if found is None:
        raise HostError(
            "kernel.not_running", f"No kernel answers on {folder}. A host starts one with `agent-kernel mcp`."
        )
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<12} {value if isinstance(value, str | int | float) else json.dumps(value)}")
    return 0


def _items(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    found: list[dict[str, Any]] = []
    if (folder / "kernel.db").exists():
        with _asking(folder) as ask:
            found = ask("items")
    if asked.json:
        print(json.dumps(found))
        return 0
    if not found:
        there = "" if (folder / "kernel.db").exists() else f" There is no kernel state in {folder} yet."
        print(f"Nothing waits for a person.{there}")
    for item in found:
        print(_item_text(item))
    return 0


def _audit(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    audit = importlib.import_module("agent_kernel_mcp.audit")
    if asked.verify:
        return 0 if audit.verified(folder, as_json=asked.json) else 1
    audit.report(folder, vars(asked), as_json=asked.json)
    return 0


def _backup(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    left_out = importlib.import_module("agent_kernel_mcp.backups").backup(folder, asked.file)
    print(f"{asked.file}: {folder}, checked, {asked.file.stat().st_size} bytes.")
    for name in left_out:
        print(f"agent-kernel: left out, since it is no regular file: {printable(name)}", file=sys.stderr)
    return 0


def _restore(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    importlib.import_module("agent_kernel_mcp.backups").restore(asked.file, folder)
    print(f"{folder} is as {asked.file} has it.")
    return 0


def _verify(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    wrong = importlib.import_module("agent_kernel_mcp.backups").verified(folder)
    if asked.json:
        print(json.dumps({"whole": not wrong, "problems": wrong}))
    else:
        print("\n".join(map(printable, wrong)) or f"{folder} is whole: the file, the runs, their values, the audit.")
    return 1 if wrong else 0


def _item_text(item: Mapping[str, Any]) -> str:
    lines = [f"{item['item_id']}  {item['kind']}  {item['run_id']}  digest {item['digest']}"]
    lines += [f"    {line}" for line in item.get("prompt", "").splitlines()]
    if item.get("details"):
        lines.append(f"    {json.dumps(item['details'], ensure_ascii=False)}")
    return "\n".join(printable(line) for line in lines)


def _decide(asked: argparse.Namespace) -> int:
    folder = state_folder(asked.state)
    if not (folder / "kernel.db").exists():
        raise HostError("item.unknown", f"There is no kernel state in {folder}. Name its folder with --state.")
    with _asking(folder) as ask:
        shown = next((item for item in ask("items") if item["item_id"] == asked.item), None)
        if shown is not None:
            print(_item_text(shown))
            if (
                asked.verb == "approve"
                and not asked.yes
                and sys.stdin.isatty()
                and input("Approve? [y/N] ").lower() != "y"
            ):
                print(f"{asked.item}: still waiting.")
                return 1
        ask(asked.verb, item_id=asked.item, note=asked.note)
    print(f"{asked.item}: {'approved' if asked.verb == 'approve' else 'denied'}.")
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    doctor = importlib.import_module("agent_kernel_mcp.doctor")
    report = doctor.examine(state_folder(asked.state))
    print(json.dumps(report) if asked.json else doctor.as_text(report))
    return 0 if report["usable"] else 1


def _install(asked: argparse.Namespace) -> int:
    hosts = importlib.import_module("agent_kernel_mcp.hosts")
    host = hosts.HOSTS.get(asked.host)
    if host is None:
        _usage(f"there is no host {asked.host!r}; known: {', '.join(hosts.HOSTS)}")
    for text in asked.folder:
        Folder.parse(text)
    options = _as_options(asked)
    file = Path(asked.file).absolute() if asked.file else host.file(Path.home())
    print(hosts.rendered(host, options), end="")
    if not asked.write:
        print(f"# {host.title}: goes into {file}; --write merges it there.", file=sys.stderr)
        return 0
    kept = hosts.merge(host, file, options)
    print(
        f"# Written to {file}{f', what was there is in {kept}' if kept else ''}. Restart {host.title}.", file=sys.stderr
    )
    return 0


def _as_options(asked: argparse.Namespace) -> list[str]:
    options = ["--state", str(Path(asked.state).expanduser().absolute())] if asked.state else []
    for name in ("folder", "allow_host", "memory_profile"):
        for value in getattr(asked, name):
            options += [f"--{name.replace('_', '-')}", value]
    options += [
        f"--{name.replace('_', '-')}"
        for name in ("standalone", "allow_packages", "approve_in_host")
        if getattr(asked, name)
    ]
    for name in ("toolsets", "agent", "tier"):
        if getattr(asked, name):
            options += [f"--{name}", getattr(asked, name)]
    return options


def _usage(message: str) -> NoReturn:
    print(f"agent-kernel: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
