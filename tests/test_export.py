"""base/export.py: files leave into folders that were shared for writing, and only there."""

import os
import sys
from pathlib import Path

import pytest
from agent_kernel import Folder, Grants, KernelError
from agent_kernel.base import export as module
from agent_kernel.base.export import Leaving, export

sys.path.insert(0, str(Path(__file__).parent))
from kernels import opened, ran

ONE = [Leaving("plot.png", b"picture")]
TWO = [Leaving("a.txt", b"a"), Leaving("b.txt", b"b")]


def leaves(files, to, *folders, overwrite=False):
    return [one.path for one in export(files, str(to), folders, os.urandom, overwrite=overwrite)]


def refused(code, *arguments, **options):
    with pytest.raises(KernelError) as error:
        leaves(*arguments, **options)
    assert error.value.code == code, error.value
    return error.value.message


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "to", "there"),
    [
        (ONE, "", ["plot.png"]),
        (ONE, "/", ["plot.png"]),
        (ONE, "/new", ["new"]),
        (ONE, "/new/", ["new/plot.png"]),
        (ONE, "/a/b/c.png", ["a/b/c.png"]),
        (TWO, "/new", ["new/a.txt", "new/b.txt"]),
    ],
)
def test_files_go_into_a_folder_or_under_the_name_that_is_given(out, files, to, there):
    assert leaves(files, f"{out}{to}", Folder(out, writable=True)) == [str(out / name) for name in there]
    assert sorted(everything(out)) == there
    assert everything(out)[there[0]] == files[0].data


def test_the_innermost_shared_folder_decides(tmp_path, out):
    inner = out / "inner"
    inner.mkdir()
    message = refused("export.denied", ONE, inner, Folder(out, writable=True), Folder(inner))
    assert "DIR:rw" in message
    assert str(out) in message
    assert leaves(ONE, inner, Folder(out), Folder(inner, writable=True))
    for elsewhere in (tmp_path, f"{out}x", "/etc/passwd", out):
        refused("export.denied", ONE, elsewhere, Folder(inner, writable=True))


@pytest.mark.parametrize("to", ["plot.png", "{out}/../x", "{out}/a/../../x", "{out}/a\0b", ""])
def test_a_way_out_is_none(out, to):
    refused("path.outside", ONE, to.format(out=out), Folder(out, writable=True))


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 300])
def test_a_name_of_a_guest_stays_one_part(out, name):
    refused("path.outside", [Leaving(name, b"x")], out, Folder(out, writable=True))
    assert not everything(out)


def test_links_on_the_way_are_not_followed(tmp_path, out):
    (tmp_path / "secret").mkdir()
    (out / "link").symlink_to(tmp_path / "secret")
    (out / "file.txt").symlink_to(tmp_path / "secret/file.txt")
    assert "link" in refused("path.outside", ONE, out / "link", Folder(out, writable=True))
    refused("path.outside", ONE, out / "link/new/plot.png", Folder(out, writable=True))
    refused("export.exists", ONE, out / "file.txt", Folder(out, writable=True), overwrite=True)
    assert not everything(tmp_path / "secret")


def test_what_is_there_is_kept_unless_told_and_the_same_bytes_are_no_conflict(out):
    (out / "b.txt").write_text("mine")
    assert "overwrite=true" in refused("export.exists", TWO, out, Folder(out, writable=True))
    assert everything(out) == {"b.txt": b"mine"}, "checked before the first is written"
    for _ in range(2):
        leaves(TWO, out, Folder(out, writable=True), overwrite=True)
    leaves(TWO, out, Folder(out, writable=True))
    assert everything(out) == {"a.txt": b"a", "b.txt": b"b"}
    (out / "dir").mkdir()
    refused("export.exists", [Leaving("dir", b"x")], out, Folder(out, writable=True), overwrite=True)


def test_a_file_that_comes_in_the_same_moment_is_not_replaced(out, monkeypatch):
    def late(self, data, *, overwrite):
        (out / "plot.png").write_text("mine")

    monkeypatch.setattr(module._Target, "check", late)
    refused("export.exists", ONE, out, Folder(out, writable=True))
    assert everything(out) == {"plot.png": b"mine"}


def test_a_link_that_comes_in_the_same_moment_is_replaced_and_not_followed(tmp_path, out, monkeypatch):
    def late(self, data, *, overwrite):
        (out / "plot.png").symlink_to(tmp_path / "victim")

    monkeypatch.setattr(module._Target, "check", late)
    leaves(ONE, out, Folder(out, writable=True), overwrite=True)
    assert not (tmp_path / "victim").exists()
    assert not (out / "plot.png").is_symlink()


def test_two_files_of_one_name_are_refused(out):
    assert "'a.txt'" in refused("argument.invalid", [*TWO, Leaving("a.txt", b"c")], out, Folder(out, writable=True))


EXPORTS = """
made = await kernel.sandbox.run("open('sum.txt', 'w').write('285')")
open("own.txt", "w").write("mine")
done = await kernel.sandbox.export([*made.files, "own.txt"], input)
try:
    await kernel.sandbox.export(made.files[0].uri, "/etc/sum.txt")
except kernel.Error as error:
    return [[file.path for file in done.files], error.code]
"""


def test_a_program_exports_by_the_grants_of_its_starter(tmp_path, out):
    async def act(kernel):
        denied = await ran(kernel, EXPORTS, str(out))
        assert denied["error"]["code"] == "export.denied"
        return await ran(kernel, EXPORTS, str(out), grants=Grants(folders=(Folder(out, writable=True),)))

    seen = opened(tmp_path / "state", act)
    assert seen["output"] == [[str(out / "sum.txt"), str(out / "own.txt")], "export.denied"], seen
    assert everything(out) == {"sum.txt": b"285", "own.txt": b"mine"}


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600), (0o775, 0o664)])
def test_who_may_read_the_folder_may_read_what_is_made_there(out, folder, file):
    out.chmod(folder)
    before = os.umask(0o077)
    try:
        leaves(ONE, f"{out}/deep/", Folder(out, writable=True))
    finally:
        os.umask(before)
    assert (out / "deep").stat().st_mode & 0o777 == folder
    assert (out / "deep/plot.png").stat().st_mode & 0o777 == file
