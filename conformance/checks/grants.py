"""Checks of what an operator allowed: folders that are seen and written to, hosts and packages that are not, pictures and paths in replies."""

import base64
import itertools
import json
import struct
import time
from pathlib import Path
from typing import Any

from ..driver import Driver
from ..registry import check, expect
from .protocol import raw_call

GAP_S = 5.5
"""Five seconds, and half of one for a busy machine."""

PNG = """
import struct, zlib
def png(name, width, height, lost=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\\0" + bytes(x % 251 for x in range(width)) for _ in range(height))
    data = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    open(name, "wb").write(data[:len(data) - lost])
"""


# --- replies


async def pictured(c: Driver, code: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result as it stood on the line, and its picture blocks."""
    result = await raw_call(c, "sandbox_run", code=PNG + code)
    expect(not result.get("isError"), f"refused: {str(result)[:300]}")
    return result, [block for block in result.get("content") or [] if block.get("type") == "image"]


@check("protocol.result.pictures-are-blocks")
async def pictures_are_blocks(c: Driver) -> None:
    result, images = await pictured(c, f"png('plot.png', 40, 30)\nprint('{c.token}')")
    expect(len(images) == 1, f"{len(images)} picture blocks: {str(result)[:300]}")
    expect("structuredContent" not in result, "there is structuredContent beside pictures, and hosts then drop them")
    told = json.loads(result["content"][0].get("text", ""))
    expect(told.get("stdout") == f"{c.token}\n", f"the first block is not the whole object: {told}")
    expect((result.get("_meta") or {}).get("result") == told, f"_meta.result is not the object: {result.get('_meta')}")
    expect(told.get("outputs"), f"outputs does not name the picture: {told}")
    width, height = _size(images[0])
    expect((width, height) == (40, 30), f"the picture is {width} x {height}")


def _size(block: dict[str, Any]) -> tuple[int, int]:
    data = base64.b64decode(block["data"])
    expect(data.startswith(b"\x89PNG"), f"a PNG became {block.get('mimeType')}")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@check("protocol.result.pictures-are-few-and-small")
async def pictures_are_few_and_small(c: Driver) -> None:
    _, images = await pictured(c, "for n in range(6): png(f'{n}.png', 2000, 20)")
    expect(1 <= len(images) <= 4, f"{len(images)} picture blocks")
    for block in images:
        expect(max(_size(block)) <= 1568, f"a picture is {_size(block)}")


@check("protocol.result.broken-pictures-are-not-shown")
async def broken_pictures_are_not_shown(c: Driver) -> None:
    for code in ("open('x.png', 'wb').write(b'no picture at all')", "png('x.png', 40, 30, lost=30)"):
        result, images = await pictured(c, code)
        expect(not images, "bytes that are no picture came as one")
        expect("x.png" in json.dumps(result.get("structuredContent")), f"the file is not named: {str(result)[:300]}")


@check("protocol.result.files-have-a-local-path")
async def files_have_a_local_path(c: Driver) -> None:
    result = await c.python(f"open('note.txt', 'w').write('{c.token}')")
    [file] = result.get("files") or [{}]
    expect(str(file.get("local_path", "")).startswith("/"), f"no local_path: {file}")
    check_copy(Path(file["local_path"]), c.token)


def check_copy(path: Path, text: str) -> None:
    expect(path.is_file() and path.read_text(encoding="utf8") == text, f"{path} does not hold the file")
    expect(not path.stat().st_mode & 0o222, f"{path} may be written to")


@check("protocol.progress.comes-every-five-seconds")
async def progress_comes(c: Driver) -> None:
    heard = [time.monotonic()]

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001  the SDK names them
        heard.append(time.monotonic())

    await c.subject.call("sandbox_run", report=hear, code="import time\ntime.sleep(11)")
    heard.append(time.monotonic())
    gap = max(later - earlier for earlier, later in itertools.pairwise(heard))
    expect(gap <= GAP_S, f"nothing was heard for {gap:.1f} s")


@check("protocol.argument.null-is-absent")
async def null_is_absent(c: Driver) -> None:
    result = await c.python("print(1)", stdin=None, files=None, language=None)
    expect(result.get("stdout") == "1\n", f"the result is {result}")
    await c.refused("argument.", "sandbox_run", code=None)


# --- what is not allowed


@check("sandbox.grants.hosts-are-denied")
async def hosts_are_denied(c: Driver) -> None:
    reply = await c.refused("egress.denied", "sandbox_run", code="1", allow_hosts=["example.org"])
    expect("--allow-host" in reply.text, f"the operator's line is not named: {reply.text}")


@check("sandbox.grants.packages-are-denied")
async def packages_are_denied(c: Driver) -> None:
    reply = await c.refused("packages.denied", "sandbox_run", code="1", packages=["left-pad"])
    expect("--allow-packages" in reply.text, f"the operator's line is not named: {reply.text}")


# --- folders


def planted(c: Driver, name: str) -> Path:
    path = c.place.shared / f"{c.token}-{name}"
    path.write_text(c.token, encoding="utf8")
    path.chmod(0o644)
    return path


@check("protocol.server.instructions-name-what-is-shared")
async def instructions_name_what_is_shared(c: Driver) -> None:
    text = (c.subject.hello.instructions if c.subject.hello else None) or ""
    expect(str(c.place.shared) in text, f"{c.place.shared} is not named: {text[-300:]!r}")


@check("sandbox.shared.is-seen-read-only")
async def shared_is_seen_read_only(c: Driver) -> None:
    path = planted(c, "seen.txt")
    new = c.place.shared / f"{c.token}-new.txt"
    code = (
        f"print(open({str(path)!r}).read())\n"
        f"for path in ({str(path)!r}, {str(new)!r}):\n"
        "    try:\n        open(path, 'w').write('changed')\n    except OSError as error:\n        print(type(error).__name__)\n"
    )
    result = await c.python(code)
    expect(result.get("stdout", "").startswith(f"{c.token}\n"), f"not seen at its own path: {result}")
    expect(path.read_text(encoding="utf8") == c.token and not new.exists(), "a sandbox wrote into the shared folder")


async def left(c: Driver, text: str) -> str:
    """The uri of a file that a sandbox made."""
    result = await c.python(f"open('{c.token}.txt', 'w').write({text!r})")
    [file] = result.get("files") or [{}]
    expect(file.get("uri"), f"the file has no uri: {result}")
    return str(file["uri"])


@check("sandbox.export.copies-into-a-shared-folder")
async def export_copies(c: Driver) -> None:
    done = await c.ok("sandbox_export", **{"from": [await left(c, "exported")], "to": f"{c.place.shared}/{c.token}/"})
    target = c.place.shared / c.token / f"{c.token}.txt"
    expect(target.is_file() and target.read_text(encoding="utf8") == "exported", f"{target} is not there: {done}")
    expect(str(target) in json.dumps(done), f"the reply does not name {target}: {done}")


@check("sandbox.export.stays-inside")
async def export_stays_inside(c: Driver) -> None:
    uri = await left(c, "out")
    outside = c.place.home / f"{c.token}-outside"
    outside.mkdir()
    link = c.place.shared / f"{c.token}-link"
    link.symlink_to(outside)
    for to in (f"{outside}/x", f"{c.place.shared}/../{outside.name}/x", f"{link}/x", "x"):
        reply = await c.call("sandbox_export", **{"from": [uri], "to": to})
        expect(reply.refused, f"an export to {to} was accepted: {reply.text[:300]}")
    expect(not list(outside.iterdir()), "a file was exported outside the shared folder")


@check("sandbox.export.keeps-what-is-there")
async def export_keeps(c: Driver) -> None:
    path = planted(c, "mine.txt")
    call = {"from": [await left(c, "theirs")], "to": str(path)}
    reply = await c.call("sandbox_export", **call)
    expect(
        reply.refused and path.read_text(encoding="utf8") == c.token, f"{path.name} was replaced: {reply.text[:300]}"
    )
    await c.ok("sandbox_export", **call, overwrite=True)
    expect(path.read_text(encoding="utf8") == "theirs", "overwrite did not replace it")


@check("sandbox.export.in-programs")
async def export_in_programs(c: Driver) -> None:
    program = (
        "async def main(input):\n    made = await kernel.sandbox.run(\"open('sum.txt', 'w').write('6')\")\n"
        "    done = await kernel.sandbox.export(made.files, input['to'])\n    return len(done['files'])"
    )
    output = await c.output(program, input={"to": f"{c.place.shared}/{c.token}/"})
    target = c.place.shared / c.token / "sum.txt"
    expect(output == 1 and target.is_file(), f"the program returned {output!r}, and {target} is not there")
    run = await c.run(program, input={"to": f"{c.place.home}/{c.token}"})
    expect(run.get("status") == "failed", f"an export outside was accepted: {run}")
    expect("denied" in json.dumps(run.get("error")), f"the failure does not say so: {run.get('error')}")
