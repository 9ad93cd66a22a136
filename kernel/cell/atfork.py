"""What modules of the standard library want done after a fork, held back until a guest is there.

Two forks make no guest wiser: the zygote has one thread, and a guest's first fork is not the program's own. Yet running these functions
(threading, logging, random) touches a hundred pages, each copied for one sandbox alone. So whatever is registered while the zygote imports
is kept here, and `give_back` registers it in the guest, before any code of its own could fork.

Guarantees
1. A guest's own forks find every function registered that an ordinary interpreter would have.
2. No two guests share the state of `random`, nor the zygote's; a guest's main thread knows its own thread id.

Imported before everything that registers something. Standard library only.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["give_back"]

_register = os.register_at_fork
_kept: list[dict[str, Callable[[], Any]]] = []


def _keep(**functions: Callable[[], Any]) -> None:
    _kept.append(functions)


assert "threading" not in sys.modules and "random" not in sys.modules, "they have registered already"  # noqa: PT018
os.register_at_fork = _keep  # type: ignore[assignment]


def give_back() -> None:
    os.register_at_fork = _register
    for functions in _kept:
        _register(**functions)
    sys.modules["random"].seed()
    sys.modules["threading"].main_thread()._set_native_id()  # noqa: SLF001  what threading's own function would do of use here
