"""mcp_server/replies.py, images.py, copies.py: what a reply looks like to hosts, over the real wire."""

import asyncio
import base64
import io
import json
import os
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

COMMAND = [sys.executable, "-m", "agent_kernel_mcp", "mcp", "--standalone", "--state"]

PLOT = """
import struct, zlib
def png(name, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\\0" + bytes(x % 256 for x in range(width)) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    open(name, "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + data)
"""


def conversation(state, body, *options):
    async def main():
        server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(state), *map(str, options)])
        async with Client(server, cache=None, read_timeout_seconds=90) as c, asyncio.timeout(90):
            return await body(c)

    return asyncio.run(main())


async def ran(c, code):
    result = await c.call_tool("sandbox_run", {"code": code})
    assert not result.is_error, result.content[0].text
    return result


def decoded(block):
    return Image.open(io.BytesIO(base64.b64decode(block.data)))


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Conversations with one server, one after the other."""
    out = tmp_path_factory.mktemp("out")
    return lambda body: conversation(out.parent / f"{out.name}-state", body, "--folder", f"{out}:rw")


def test_a_picture_comes_as_a_block_beside_the_json_and_without_structured_content(talk):
    async def body(c):
        result = await ran(c, PLOT + "png('plot.png', 40, 30)\n'done'")
        assert result.structured_content is None, "hosts that find one drop the blocks"
        assert [block.type for block in result.content] == ["text", "image"]
        told = json.loads(result.content[0].text)
        assert (told["value"], result.meta["result"]) == ("'done'", told)
        [output] = told["outputs"]
        assert (output["mime"], output["uri"]) == ("image/png", told["files"][0]["uri"])
        assert "usage" in result.meta
        assert decoded(result.content[1]).size == (40, 30)
        original = Path(told["files"][0]["local_path"]).read_bytes()
        assert base64.b64decode(result.content[1].data) == original, "what is in order goes as it is"
        again = await c.call_tool("sandbox_read", {"uri": output["uri"]})
        assert [block.type for block in again.content] == ["text", "image"]
        assert again.content[1].data == result.content[1].data

    talk(body)


def test_a_large_picture_is_made_smaller_and_five_are_four(talk):
    async def body(c):
        result = await ran(c, PLOT + "png('wide.png', 3000, 300)\n[png(f'{n}.png', 9, 9) for n in range(4)]\nNone")
        sizes = [decoded(block).size for block in result.content[1:]]
        assert sizes == [(9, 9)] * 4
        assert "1 more" in json.loads(result.content[0].text)["note"]
        result = await ran(c, PLOT + "png('wide.png', 3000, 300)")
        assert decoded(result.content[1]).size == (1568, 157)

    talk(body)


@pytest.mark.parametrize(
    "spoiled",
    [
        "open('x.png', 'wb').write(b'not a picture')",
        PLOT + "png('x.png', 40, 30)\ndata = open('x.png', 'rb').read()\nopen('x.png', 'wb').write(data[:-30])",
        PLOT + "png('y.png', 3000, 3000)\nimport os\nos.rename('y.png', 'x.png')\nopen('x.png', 'ab').truncate(100)",
    ],
)
def test_what_no_decoder_takes_is_named_and_not_shown(talk, spoiled):
    async def body(c):
        result = await ran(c, spoiled)
        assert [block.type for block in result.content] == ["text"]
        assert "could not be decoded" in result.structured_content["note"]
        assert result.structured_content["files"][0]["path"] == "x.png"

    talk(body)


def test_the_server_itself_decodes_nothing(tmp_path):
    code = "import sys; sys.modules['PIL'] = None; import agent_kernel_mcp.server, agent_kernel_mcp.images"
    assert asyncio.run(_exit_code(code)) == 0


async def _exit_code(code):
    return await (await asyncio.create_subprocess_exec(sys.executable, "-c", code)).wait()


def test_a_result_file_has_a_path_here_whatever_the_guest_called_it(talk, tmp_path):
    async def body(c):
        result = await ran(
            c, "import os\nos.makedirs('a/b')\nopen('a/b/c.txt', 'w').write('1')\nopen('\\x1b.txt', 'w')"
        )
        files = {file["path"]: file for file in result.structured_content["files"]}
        copy = Path(files["a/b/c.txt"]["local_path"])
        assert copy.read_text() == "1"
        assert copy.stat().st_mode & 0o777 == 0o400
        assert copy.parts[-3:] == ("a", "b", "c.txt")
        assert Path(files["␛.txt"]["local_path"]).parent == copy.parents[2]

    talk(body)


def test_files_are_exported_into_a_folder_shared_for_writing_only(tmp_path):
    for name in ("out", "in"):
        (tmp_path / name).mkdir()

    async def body(c):
        tools = {tool.name: tool for tool in (await c.list_tools()).tools}
        hints = tools["sandbox_export"].annotations
        assert (hints.destructive_hint, hints.read_only_hint) == (True, False)
        result = await ran(
            c, f"open('sum.txt', 'w').write('6')\ntry: open('{tmp_path}/out/x', 'w')\nexcept OSError: print('no')"
        )
        assert result.structured_content["stdout"] == "no\n", "a sandbox does not write there itself"
        uri = result.structured_content["files"][0]["uri"]
        done = await c.call_tool("sandbox_export", {"from": [uri], "to": f"{tmp_path}/out/"})
        assert done.structured_content == {"files": [{"path": f"{tmp_path}/out/sum.txt", "size_bytes": 1}]}
        for to, code in ((f"{tmp_path}/in/", "export.denied"), (f"{tmp_path}/out/../in/x", "path.outside")):
            refused = await c.call_tool("sandbox_export", {"from": [uri], "to": to})
            assert refused.structured_content["error"]["code"] == code
        unknown = await c.call_tool(
            "sandbox_export", {"from": ["sandbox://sbx_aaaaaaaaaaaa/files/x"], "to": f"{tmp_path}/out/"}
        )
        assert unknown.structured_content["error"]["code"] == "uri.unknown"

    conversation(tmp_path / "state", body, "--folder", f"{tmp_path}/out:rw", "--folder", tmp_path / "in")
    assert (tmp_path / "out/sum.txt").read_text() == "6"
    assert list((tmp_path / "in").iterdir()) == []


def test_without_such_a_folder_there_is_no_export(tmp_path):
    async def body(c):
        assert "sandbox_export" not in {tool.name for tool in (await c.list_tools()).tools}
        refused = await c.call_tool("sandbox_export", {"from": ["sandbox://x"], "to": "/tmp/x"})
        assert refused.structured_content["error"]["code"] == "tool.unknown"

    (tmp_path / "in").mkdir()
    conversation(tmp_path / "state", body, "--folder", tmp_path / "in")


def test_old_copies_are_swept(tmp_path):
    folder = tmp_path / "state/files/sbx_aaaaaaaaaaaa"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    (folder / "old.txt").write_text("old")
    (folder / "old.txt").chmod(0o400)
    os.utime(folder, (0, 0))

    async def body(c):
        await ran(c, "open('new.txt', 'w').write('1')")

    conversation(tmp_path / "state", body)
    assert not folder.exists()
    assert len(list((tmp_path / "state/files").iterdir())) == 1


def test_a_copy_that_cannot_be_made_costs_its_path_only(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/files").write_text("in the way")

    async def body(c):
        [file] = (await ran(c, "open('a.txt', 'w').write('1')")).structured_content["files"]
        assert set(file) == {"path", "size_bytes", "uri"}

    conversation(tmp_path / "state", body)
