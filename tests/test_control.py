"""mcp_server/control.py: the socket by which a person reaches a running kernel."""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from agent_kernel.base.errors import Conflict, HostError, KernelError
from agent_kernel_mcp.control import Control, ask


async def serve(op, request):
    if op == "deny":
        raise Conflict("item.changed", "It changed. Look again.")
    if op == "status":
        raise RuntimeError("bug")
    return {"op": op, "item": request.get("item_id")}


def bounded(main):
    return asyncio.run(asyncio.wait_for(main, 30))


def test_a_request_gets_its_answer_and_an_error_stays_an_error(tmp_path):
    async def main():
        control = await Control.open(tmp_path, serve)
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask, tmp_path, "approve", item_id="itm_x") == {"op": "approve", "item": "itm_x"}
        with pytest.raises(KernelError, match=r"item\.changed: It changed"):
            await asyncio.to_thread(ask, tmp_path, "deny")
        with pytest.raises(KernelError, match=r"kernel\.fault: RuntimeError: bug"):
            await asyncio.to_thread(ask, tmp_path, "status")
        control.close()
        assert not (tmp_path / "control").exists()

    bounded(main())


def test_nobody_there_is_none(tmp_path):
    assert ask(tmp_path, "items") is None
    assert ask(tmp_path / "not/there", "items") is None


def test_a_stale_socket_is_nobody_and_is_replaced(tmp_path):
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control"))
    stale.close()
    assert ask(tmp_path, "items") is None

    async def main():
        control = await Control.open(tmp_path, serve)
        assert await asyncio.to_thread(ask, tmp_path, "items") == {"op": "items", "item": None}
        control.close()

    bounded(main())


def test_a_path_of_any_length_works(tmp_path):
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)

    async def main():
        control = await Control.open(folder, serve)
        assert (await asyncio.to_thread(ask, folder, "items"))["op"] == "items"
        control.close()

    bounded(main())
    assert ask(folder, "items") is None


@pytest.mark.parametrize("line", [b"{not json\n", b"[1]\n", b'{"v":2,"op":"items"}\n', b'{"v":1}\n', b"\xff\n", b""])
def test_a_broken_request_is_answered_or_dropped_and_the_next_one_served(tmp_path, line):
    async def main():
        control = await Control.open(tmp_path, serve)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
        writer.write(line)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 20)
        assert b"control.protocol" in answer
        writer.close()
        assert (await asyncio.to_thread(ask, tmp_path, "items"))["op"] == "items"
        control.close()

    bounded(main())


def test_a_line_past_the_limit_costs_its_connection_only(tmp_path):
    async def main():
        control = await Control.open(tmp_path, serve)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
        writer.write(b"x" * (3 << 20))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert (await asyncio.to_thread(ask, tmp_path, "items"))["op"] == "items"
        control.close()

    bounded(main())


def test_a_folder_that_cannot_hold_a_socket_is_named(tmp_path):
    with pytest.raises(HostError, match=r"state\.control"):
        bounded(Control.open(tmp_path / "missing", serve))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another uid to come from")
def test_a_peer_of_another_uid_gets_no_answer():
    folder = Path(tempfile.mkdtemp(prefix="agent-kernel-control-"))

    async def main():
        control = await Control.open(folder, serve)
        folder.chmod(0o755)
        (folder / "control").chmod(0o666)
        code = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]);"
            's.sendall(b\'{"v":1,"op":"items"}\\n\'); print(s.recv(100))'
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            str(folder / "control"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert out == b"b''\n" or b"Connection reset" in err or b"Broken pipe" in err
        assert b"op" not in out
        control.close()

    try:
        bounded(main())
    finally:
        shutil.rmtree(folder)
