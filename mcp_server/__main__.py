"""The command `agent-kernel`: the bridge for hosts, which must start at once, beside everything else (commands.py).

Only `mcp` over a shared kernel is taken here, before anything is imported that it does not need.
"""

import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    shared = arguments[:1] == ["mcp"] and "--standalone" not in arguments and sys.platform == "linux"
    if shared:
        return int(importlib.import_module("agent_kernel_mcp.bridge").main(arguments[1:]))
    return int(importlib.import_module("agent_kernel_mcp.commands").main(arguments))


if __name__ == "__main__":
    sys.exit(main())
