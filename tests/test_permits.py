"""kernel/cell/permits.py: what a guest without a uid of its own may change of files, asked by one that is locked as such a guest is."""

import ast
import subprocess
import sys

import pytest

ASK = """
import ctypes, errno, mmap, os, select, socket, sys
from agent_kernel.base.filter import compile_filter
from agent_kernel.cell import layers, permits

program, folder, libc = compile_filter("shared"), sys.argv[1], ctypes.CDLL(None, use_errno=True)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

def told(result):
    return "done" if result == 0 else errno.errorcode[ctypes.get_errno()]

def guest():
    os.chdir(folder)
    page = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    page.write(b"\\0" * mmap.PAGESIZE * 2)
    edge = ctypes.addressof(ctypes.c_char.from_buffer(page)) + mmap.PAGESIZE - 8
    far = ctypes.c_void_p(2**64 - 1)
    return {ASKED}

if os.fork() == 0:
    layers.no_new_privileges()
    listener = layers.filter_calls(program, listen=True)
    socket.send_fds(theirs, [b"L"], [listener])
    os.close(listener)
    print(repr(guest()), flush=True)
    os._exit(0)
theirs.close()
(listener,) = socket.recv_fds(ours, 1, 1)[1]
waiting, permitted = select.poll(), permits.Permits(listener, [folder])
waiting.register(listener, select.POLLIN)
while waiting.poll(20_000)[0][1] & select.POLLIN:
    permitted.answer()
"""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ('told(libc.chmod(b"f", 0o640)), oct(os.stat("f").st_mode)', ("done", "0o100640")),
        ('told(libc.chmod(b"f", 0o4755))', "EPERM"),
        ('told(libc.chmod(b"/etc/hostname", 0o644)), told(libc.chmod(b"../other", 0o600))', ("EPERM", "EPERM")),
        ('told(libc.chmod(b"link", 0o600)), told(libc.utimensat(-100, b"link", None, 0))', ("EPERM", "EPERM")),
        ('told(libc.chmod(b"none", 0o600)), told(libc.fchmod(99, 0o600))', ("ENOENT", "ENOENT")),
        ('told(libc.chmod(far, 0o600)), told(libc.utimensat(-100, b"f", far, 0))', ("EFAULT", "EFAULT")),
        ('told(libc.utimensat(-100, b"f", ctypes.c_void_p(edge), 0)), os.stat("f").st_mtime_ns', ("done", 0)),
        ('told(libc.chmod(far, 0)), told(libc.chmod(b"f", 0o600))', ("EFAULT", "done")),
    ],
)
def test_what_is_asked_is_done_beneath_the_folders_and_else_an_errno(tmp_path, asked, answer):
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "f").write_text("x")
    (tmp_path / "other").write_text("x")
    (folder / "link").symlink_to(tmp_path / "other")
    done = subprocess.run(
        [sys.executable, "-c", ASK.replace("{ASKED}", asked), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert ast.literal_eval(done.stdout) == answer
