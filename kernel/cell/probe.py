"""What each layer can do on this host: every one tried by itself, in a child that is thrown away.

Run as a program of its own (single-threaded, standard library only); prints a JSON list of [name, works, detail]. The functions tried are
the ones that build sandboxes (layers.py), so a layer that works here and fails there is a bug and not a difference of opinion.

Not here: which tier that makes (sandbox.py runs a real sandbox to know), and what a person should do about it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

from . import layers

__all__ = ["main"]

Check = Callable[[], str]
ALLOW_ALL = bytes.fromhex("06000000" + "0000ff7f")
"""One BPF instruction: return SECCOMP_RET_ALLOW."""
SOMEBODY = 65534
"""Never used for a guest; here nobody's code runs."""


def main() -> None:
    found = [("user namespace", *_in_namespaces(0, _nothing))]
    for name, flag in layers.NAMESPACES.items():
        if name != "user":
            found.append((f"{name} namespace", *_in_namespaces(flag, _USES.get(name, _nothing))))
    found.append(("private root", *_in_namespaces(layers.FULL_NAMESPACES, _private_root)))
    found.append(("own uid", *_own_uid()))
    found.append(("no_new_privs", *_in_child(_no_new_privs)))
    found.append(("landlock", *_in_child(_landlock)))
    found.append(("seccomp", *_in_child(_seccomp)))
    json.dump(found, sys.stdout)


def _nothing() -> str:
    return ""


def _no_new_privs() -> str:
    layers.no_new_privileges()
    return ""


def _mount() -> str:
    layers.become(layers.INSIDE_ID, layers.INSIDE_ID)
    layers.new_root(layers.Binds.open((), ()), ())
    return ""


def _loopback() -> str:
    layers.loopback_up()
    return ""


_USES: dict[str, Check] = {"mount": _mount, "network": _loopback}


def _private_root() -> str:
    binds = layers.Binds.open([("/usr", "/usr")], ["/dev/null"])
    layers.become(layers.INSIDE_ID, layers.INSIDE_ID)
    layers.new_root(binds, ())
    layers.own_folders(layers.Folders(1 << 20, 128))
    layers.drop_capabilities()
    return "" if os.path.isdir("/proc/self") else "without /proc inside"


def _landlock() -> str:
    abi = layers.landlock_abi()
    layers.no_new_privileges()
    layers.confine_files(layers.opened_rules([("/usr", layers.READ_RUN)]), tcp_denied=abi >= layers.SCOPE_ABI)
    scoped = "" if abi >= layers.SCOPE_ABI else f"; tier confined needs {layers.SCOPE_ABI} (Linux 6.12)"
    return f"abi {abi}{scoped}"


def _seccomp() -> str:
    layers.no_new_privileges()
    layers.filter_calls(ALLOW_ALL)
    return ""


def _own_uid() -> tuple[bool, str]:
    if os.geteuid() != 0:
        return False, "only root can give each sandbox a uid of its own; without, tier confined shares yours"
    return _in_child(_somebody)


def _somebody() -> str:
    layers.become(SOMEBODY, SOMEBODY)
    return "one per sandbox, reserved machine-wide"


def _in_child(check: Check) -> tuple[bool, str]:
    return _try(os.fork, check, lambda _: None)


def _in_namespaces(flags: int, check: Check) -> tuple[bool, str]:
    uid, gid = os.geteuid() or SOMEBODY, os.getegid() or SOMEBODY
    return _try(
        lambda: layers.clone(flags | layers.NAMESPACES["user"]), check, lambda pid: layers.map_ids(pid, uid, gid)
    )


def _try(birth: Callable[[], int], check: Check, prepare: Callable[[int], None]) -> tuple[bool, str]:
    answer, say = os.pipe()
    go, tell_go = os.pipe()
    try:
        pid = birth()
    except layers.LayerError as error:
        return False, str(error)
    if pid == 0:
        os.close(tell_go)
        _answer(check, go, say)
    try:
        prepare(pid)
        os.write(tell_go, b"g")
    except layers.LayerError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False, str(error)
    os.close(say)
    said = os.read(answer, 4096).decode()
    os.waitpid(pid, 0)
    return (True, said[1:]) if said.startswith("+") else (False, said[1:] or "the child died")


def _answer(check: Check, go: int, say: int) -> None:
    try:
        os.read(go, 1)
        text = "+" + check()
    except Exception as error:  # noqa: BLE001  the text of it is the finding
        text = f"-{error}"
    os.write(say, text.encode())
    os._exit(0)
