"""`agent-kernel doctor`: what this machine can isolate, which tier that gives, what is missing and the line that gets it.

The layers are not read from version numbers: a throw-away sandbox is made and told to report what was applied to it (sandbox.probe).
The rest is what a start would trip over: Python, SQLite, the state folder, the packages of the server.

Nothing is changed, not even the state folder is made, so there is nothing to lose when the process dies.
"""

import contextlib
import importlib.metadata
import os
import platform
import sqlite3
import sys
from pathlib import Path
from typing import Any

from agent_kernel.base import system
from agent_kernel.base.store import NETWORK_FILE_SYSTEMS, file_system_of
from agent_kernel.sandbox import probe

from .values import wire

__all__ = ["as_text", "examine"]

SQLITE_LEAST = (3, 37)
"""STRICT tables."""


def examine(state: Path) -> dict[str, Any]:
    """The whole report, as JSON values."""
    sandbox = wire(probe())
    checks = [_python(), _sqlite(), _folder(state), *_packages()]
    return {
        "usable": sandbox["tier"] != "none" and all(check["fine"] for check in checks),
        "tier": sandbox["tier"],
        "host": {
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "python": platform.python_version(),
            "uid": system.uid(),
        },
        "sandbox": sandbox,
        "checks": checks,
    }


def _check(name: str, found: str, *, fine: bool, help: str = "") -> dict[str, Any]:  # noqa: A002  (it is the word on the wire)
    return {"name": name, "fine": fine, "found": found, **({} if fine or not help else {"help": help})}


def _python() -> dict[str, Any]:
    return _check(
        "python", platform.python_version(), fine=sys.version_info >= (3, 11), help="Install Python 3.11 or newer."
    )


def _sqlite() -> dict[str, Any]:
    fine = sqlite3.sqlite_version_info >= SQLITE_LEAST
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            db.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.OperationalError:
        return _check(
            "sqlite", f"{sqlite3.sqlite_version} without FTS5", fine=False, help="Use a Python whose sqlite3 has FTS5."
        )
    return _check("sqlite", sqlite3.sqlite_version, fine=fine, help="Use a Python with SQLite 3.37 or newer.")


def _folder(state: Path) -> dict[str, Any]:
    there = next(path for path in (state, *state.parents) if path.exists())
    kind = file_system_of(there)
    found = f"{state} on {kind or 'an unnamed file system'}"
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        return _check(
            "state folder", found, fine=False, help="Name a folder on a local disk: --state DIR, or AGENT_KERNEL_HOME."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        return _check(
            "state folder",
            f"{found}, not writable",
            fine=False,
            help="Name another folder: --state DIR, or AGENT_KERNEL_HOME.",
        )
    return _check("state folder", found, fine=True)


def _packages() -> list[dict[str, Any]]:
    found = []
    for name in system.PACKAGES:
        try:
            found.append(_check(name, importlib.metadata.version(name), fine=True))
        except importlib.metadata.PackageNotFoundError:
            found.append(_check(name, "not installed", fine=False, help=f"Run: {sys.executable} -m pip install {name}"))
    return found


def as_text(report: dict[str, Any]) -> str:
    host = report["host"]
    lines = [
        f"{host['system']} {host['machine']}, Python {host['python']}, uid {host['uid']}",
        f"tier: {report['tier']}{'' if report['tier'] != 'none' else ' (no code will be run)'}",
    ]
    lines += [
        f"  {'yes' if layer['works'] else 'NO':<4}{layer['name']:<24}{layer.get('detail', '')}"
        for layer in report["sandbox"].get("layers", ())
    ]
    lines += [f"  missing: {line}" for line in report["sandbox"].get("missing", ())]
    for check in report["checks"]:
        lines.append(f"  {'ok' if check['fine'] else 'NO':<4}{check['name']:<24}{check['found']}")
        if "help" in check:
            lines.append(f"      {check['help']}")
    return "\n".join(lines)
