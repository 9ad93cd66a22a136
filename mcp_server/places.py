"""Where the state folder is: `--state`, else AGENT_KERNEL_HOME, else XDG_STATE_HOME/agent-kernel, else ~/.local/state/agent-kernel; and how text of
others is printed.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from agent_kernel.base.errors import HostError

from .hello import state_path

__all__ = ["printable", "state_folder"]


def state_folder(given: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    path = state_path(given, environ)
    if path is None:
        raise HostError("state.no_home", "There is no home folder. Name a state folder with --state.")
    return Path(path)


def printable(text: str) -> str:
    """Without control characters: what a guest wrote must not move the cursor of the person who decides on it."""
    return "".join(char if char.isprintable() else " " for char in text)
