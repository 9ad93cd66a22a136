"""The operator's options, the same for `mcp`, `serve` and `install`: what a connection is granted and how it is called. Standard library only."""

import argparse

__all__ = ["mcp_options", "names", "operator_options", "state_option"]

IDLE_EXIT_S = 300.0

MEMORY_PROFILES = ("anthropic", "server-memory")
"""As in base/policy.py, which costs the import of the kernel."""


def state_option() -> argparse.ArgumentParser:
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        metavar="DIR",
        help="state folder (default: AGENT_KERNEL_HOME, or agent-kernel in the XDG state folder)",
    )
    return state


def operator_options() -> argparse.ArgumentParser:
    operator = argparse.ArgumentParser(add_help=False)
    operator.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="DIR[:rw]",
        help="share a folder with sandboxes, read-only (repeat)",
    )
    operator.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="H",
        help="kept for later: sandboxes reach no host yet (repeat)",
    )
    operator.add_argument(
        "--allow-packages", action="store_true", help="kept for later: sandboxes have the standard library only"
    )
    operator.add_argument(
        "--approve-in-host", action="store_true", help="let the model's run_approve answer what waits for a person"
    )
    operator.add_argument(
        "--memory-profile",
        action="append",
        default=[],
        choices=MEMORY_PROFILES,
        help="also serve the tools of another memory server over this one's memory: Anthropic's memory tool, the official"
        " server-memory (repeat)",
    )
    operator.add_argument(
        "--toolsets",
        default="",
        metavar="A,B",
        help="serve these tools only: sandbox, run, memory, skill, author (default: all but author, with which agents write skills)",
    )
    operator.add_argument("--agent", metavar="NAME", help="a label for what this connection writes")
    operator.add_argument(
        "--tier", choices=("full", "confined"), help="refuse to start with less (full), or use no more (confined)"
    )
    return operator


def idle_option(default: float | None) -> argparse.ArgumentParser:
    idle = argparse.ArgumentParser(add_help=False)
    idle.add_argument(
        "--idle-exit", type=_seconds, default=default, metavar="S",
        help="the shared kernel ends when nobody was connected and no run had work for so long (default 300; 0: never)"
    )  # fmt: skip
    return idle


def mcp_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent-kernel mcp",
        description="Serve MCP on stdio, by the kernel of the state folder, which all hosts share; it is started when none runs.",
        parents=[state_option(), operator_options(), idle_option(IDLE_EXIT_S)],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--standalone", action="store_true", help="run a kernel in this process; refused where one runs already"
    )
    return parser


def names(text: str) -> list[str]:
    """Of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
