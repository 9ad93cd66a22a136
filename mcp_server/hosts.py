"""`agent-kernel install HOST`: the entry that makes an MCP host start this server, printed or merged into the host's file.

    host             file (Linux; macOS in brackets)                              key
    claude-code      ~/.claude.json                                               mcpServers
    claude-desktop   ~/.config/Claude [~/Library/Application Support/Claude]/claude_desktop_config.json   mcpServers
    cursor           ~/.cursor/mcp.json                                           mcpServers
    vscode           ~/.config/Code/User [~/Library/Application Support/Code/User]/mcp.json   servers, with type
    zed              ~/.config/zed/settings.json                                  context_servers
    goose            ~/.config/goose/config.yaml                                  extensions, YAML

Guarantees
1. Without `--write` nothing is touched. The command is an absolute path: hosts start servers with a short PATH.
2. With it everything else in the file stays as it was, the file before is kept beside it (`.before-agent-kernel`), and the new one
   takes its place in one rename: a crash leaves the old file or the new one. A link is followed, the mode is kept.
3. A file that does not parse (comments included, which JSON has not) is refused untouched; the entry is printed for pasting.

YAML is edited as text, since writing it anew would lose the person's comments, and read back to see that only our entry changed.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from agent_kernel.base.errors import HostError

__all__ = ["HOSTS", "Host", "command", "entry", "merge", "rendered"]

NAME = "agent-kernel"


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    title: str
    key: str
    linux: str
    mac: str

    def file(self, home: Path) -> Path:
        return home / (self.mac if sys.platform == "darwin" else self.linux)


_MAC = "Library/Application Support"
HOSTS = {
    host.name: host
    for host in (
        Host("claude-code", "Claude Code", "mcpServers", ".claude.json", ".claude.json"),
        Host("claude-desktop", "Claude Desktop", "mcpServers", ".config/Claude/claude_desktop_config.json",
             f"{_MAC}/Claude/claude_desktop_config.json"),
        Host("cursor", "Cursor", "mcpServers", ".cursor/mcp.json", ".cursor/mcp.json"),
        Host("vscode", "VS Code", "servers", ".config/Code/User/mcp.json", f"{_MAC}/Code/User/mcp.json"),
        Host("zed", "Zed", "context_servers", ".config/zed/settings.json", ".config/zed/settings.json"),
        Host("goose", "Goose", "extensions", ".config/goose/config.yaml", ".config/goose/config.yaml"),
    )
}  # fmt: skip


def command() -> list[str]:
    """The command of this very installation, absolute; not resolved, because a virtual environment is found by its own path."""
    beside = Path(sys.executable).absolute().parent / NAME
    return [str(beside)] if beside.exists() else [str(Path(sys.executable).absolute()), "-m", "agent_kernel_mcp"]


def entry(host: Host, options: Sequence[str]) -> dict[str, Any]:
    program, *first = command()
    args = [*first, "mcp", *options]
    match host.name:
        case "vscode" | "claude-code":
            return {"type": "stdio", "command": program, "args": args}
        case "zed":
            return {"source": "custom", "command": program, "args": args, "env": {}}
        case "goose":
            return {
                "name": NAME, "description": "Sandbox, durable runs, memory and skills", "type": "stdio", "enabled": True,
                "cmd": program, "args": args, "envs": {}, "timeout": 300,
            }  # fmt: skip
    return {"command": program, "args": args}


def rendered(host: Host, options: Sequence[str]) -> str:
    """The entry as it stands in an otherwise empty file."""
    whole = {host.key: {NAME: entry(host, options)}}
    if host.name == "goose":
        return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def merge(host: Host, file: Path, options: Sequence[str]) -> Path | None:
    """Put the entry into `file`; returns the copy of what was there before, None when there was no file."""
    file = file.resolve()
    try:
        before = file.read_text(encoding="utf8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise HostError("install.unreadable", f"{file} cannot be read: {error}. Nothing was changed.") from error
    if not before.strip():
        after = rendered(host, options)
    elif host.name == "goose":
        after = _into_yaml(host, file, before, options)
    else:
        after = _into_json(host, file, before, options)
    try:
        return _replace(file, before, after)
    except OSError as error:
        raise HostError("install.failed", f"{file} cannot be written: {error}. Nothing was changed.") from error


def _into_json(host: Host, file: Path, before: str, options: Sequence[str]) -> str:
    try:
        whole = json.loads(before)
    except ValueError as error:
        raise HostError(
            "install.unparsed",
            f"{file} is not plain JSON ({error}). It was not touched; add the entry printed above by hand.",
        ) from None
    servers = whole.setdefault(host.key, {}) if isinstance(whole, dict) else None
    if not isinstance(servers, dict):
        raise HostError("install.unparsed", f"{file} has another form than {host.title} writes. It was not touched.")
    servers[NAME] = entry(host, options)
    indent = re.search(r"\n([ \t]+)\S", before)
    return json.dumps(whole, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"


def _into_yaml(host: Host, file: Path, before: str, options: Sequence[str]) -> str:
    try:
        whole = yaml.safe_load(before)
    except yaml.YAMLError as error:
        raise HostError("install.unparsed", f"{file} is not YAML ({error}). It was not touched.") from None
    wanted = dict(whole) if isinstance(whole, dict) else {}
    extensions = wanted.get(host.key)
    wanted[host.key] = (
        {**(extensions or {}), NAME: entry(host, options)} if isinstance(extensions or {}, dict) else None
    )
    after = _edited(before.rstrip("\n").split("\n"), host, options)
    try:
        same = yaml.safe_load(after) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise HostError(
            "install.unparsed",
            f"{file} is written in a way that cannot be added to safely. It was not touched; add the entry by hand.",
        )
    return after


def _edited(lines: list[str], host: Host, options: Sequence[str]) -> str:
    """The lines with our block first under the key, any older block of ours gone."""
    at = next((i for i, line in enumerate(lines) if re.fullmatch(rf"{host.key}:\s*(#.*|{{\s*}}\s*)?", line)), None)
    if at is None:
        lines = [*lines, f"{host.key}:"]
        at = len(lines) - 1
    lines[at] = re.sub(r"{\s*}\s*$", "", lines[at]).rstrip()
    child = next((line for line in lines[at + 1 :] if line.strip() and not line.lstrip().startswith("#")), "")
    indent = len(child) - len(child.lstrip()) or 2
    start = next(
        (i for i in range(at + 1, len(lines)) if re.fullmatch(rf" {{{indent}}}['\"]?{NAME}['\"]?:.*", lines[i])), None
    )
    if start is not None:
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
            end += 1
        del lines[start:end]
    block = yaml.safe_dump({NAME: entry(host, options)}, sort_keys=False, allow_unicode=True).rstrip("\n").split("\n")
    lines[at + 1 : at + 1] = [" " * indent + line for line in block]
    return "\n".join(lines) + "\n"


def _replace(file: Path, before: str, after: str) -> Path | None:
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = None
    if before:
        kept = file.with_name(file.name + ".before-agent-kernel")
        shutil.copy2(file, kept)
    fd, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf8") as out:
            out.write(after)
            out.flush()
            os.fsync(out.fileno())
        if before:
            shutil.copymode(file, name)
        os.replace(name, file)  # noqa: PTH105
    except OSError:
        os.unlink(name)  # noqa: PTH108
        raise
    return kept
