"""Where the state folder is: `--state`, else AGENT_KERNEL_HOME, else XDG_STATE_HOME/agent-kernel, else ~/.local/state/agent-kernel; and how text of
others is printed.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from agent_kernel.base.errors import HostError

__all__ = ["printable", "state_folder"]


def state_folder(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    if environ.get("AGENT_KERNEL_HOME"):
        return Path(environ["AGENT_KERNEL_HOME"]).expanduser().absolute()
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]).absolute() / "agent-kernel"
    try:
        return Path.home() / ".local/state/agent-kernel"
    except RuntimeError:
        raise HostError("state.no_home", "There is no home folder. Name a state folder with --state.") from None


def printable(text: str) -> str:
    """Without control characters: what a guest wrote must not move the cursor of the person who decides on it."""
    return "".join(char if char.isprintable() else " " for char in text)
