import mmap
import os
from pathlib import Path

import pytest
from agent_kernel.base.errors import ArgumentError, LimitExceeded
from agent_kernel.base.limits import Limits
from agent_kernel.base.workspace import ENTRIES_MAX, checked_files, checked_path, clear, collect, usage


@pytest.fixture
def folder(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, descriptor
    os.close(descriptor)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "ä/ö ü", ".hidden", "a..b", "x" * 255])
def test_names_beneath_the_workspace_are_taken(path):
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "..",
        "a/..",
        "../a",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "a\\b",
        "x" * 256,
        "\ud800",
        "/".join("a" * 40),
    ],
)
def test_names_that_lead_elsewhere_are_refused(path):
    with pytest.raises(ArgumentError) as refused:
        checked_path(path)
    assert refused.value.code == "path.outside"


@pytest.mark.parametrize(
    "files", [{"a": "1", "a/b": "2"}, {"a/b/c": "1", "a": "2"}, {"a": 5}, {"/".join(["ä" * 100] * 11): "x"}]
)
def test_files_that_cannot_stand_together_are_refused(files):
    with pytest.raises(ArgumentError):
        checked_files(files, Limits())


def test_files_larger_than_a_workspace_are_refused():
    with pytest.raises(LimitExceeded):
        checked_files({"a": b"123456"}, Limits(workspace_bytes_max=5))


def test_new_and_changed_files_are_found_and_unchanged_ones_are_not(folder):
    path, descriptor = folder
    (path / "d").mkdir()
    (path / "same").write_text("1")
    (path / "changed").write_text("2")
    (path / "d" / "new").write_text("3")
    found = collect(descriptor, {"same": b"1", "changed": b"1"}, Limits())
    assert [(f.path, f.data) for f in found] == [("changed", b"2"), ("d/new", b"3")]


def test_only_regular_files_with_one_link_are_read(folder, tmp_path_factory):
    path, descriptor = folder
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text("SECRET")
    (path / "link").symlink_to(secret)
    (path / "folder").symlink_to(secret.parent)
    os.mkfifo(path / "fifo")
    (path / "one").write_text("1")
    os.link(path / "one", path / "two")
    os.link(secret, path / "hard")
    assert collect(descriptor, {}, Limits()) == []


def test_what_is_past_the_limits_is_named_and_not_kept(folder):
    path, descriptor = folder
    for name in "abc":
        (path / name).write_bytes(b"12345")
    with (path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    found = collect(descriptor, {}, Limits(collected_bytes_max=10))
    assert sum(f.data is not None for f in found) == 2
    assert {f.path: f.size_bytes for f in found} == {"a": 5, "b": 5, "c": 5, "sparse": 1 << 40}
    assert sum(f.data is not None for f in collect(descriptor, {}, Limits(collected_files_max=1))) == 1


def test_names_that_are_no_text_become_text(folder):
    path, descriptor = folder
    (path / os.fsdecode(b"bad\xff\x1b")).write_text("1")
    [found] = collect(descriptor, {}, Limits())
    assert found.path.encode()
    assert "\x1b" not in found.path


def test_a_tree_too_deep_to_be_looked_at_ends_the_look(folder):
    _, descriptor = folder
    deep = descriptor
    opened = []
    for _ in range(200):
        os.mkdir("d", dir_fd=deep)
        deep = os.open("d", os.O_RDONLY, dir_fd=deep)
        opened.append(deep)
    os.close(os.open("hidden", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    for one in opened:
        os.close(one)
    assert collect(descriptor, {}, Limits()) == []
    assert usage([descriptor], []).inodes == ENTRIES_MAX


def test_open_files_that_nobody_sees_count_as_used(folder):
    path, descriptor = folder
    with (path / "gone").open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        (path / "gone").unlink()
        assert usage([descriptor], []).bytes == 0
        assert usage([descriptor], [os.getpid()]).bytes >= 1 << 20


def test_the_names_of_what_is_not_kept_are_bounded(folder):
    path, descriptor = folder
    place = path / ("d" * 250)
    place.mkdir()
    for n in range(5000):
        (place / f"{n:0250}").write_text("")
    found = collect(descriptor, {}, Limits(collected_files_max=1))
    assert 1000 < len(found) < 4200


def test_empty_files_count_as_files(folder):
    path, descriptor = folder
    for number in range(5):
        (path / f"f{number}").touch()
    found = collect(descriptor, {}, Limits(collected_files_max=3))
    assert sorted(file.data is None for file in found) == [False, False, False, True, True]


def test_removed_files_count_while_they_are_open_or_mapped(folder):
    path, descriptor = folder
    with (path / "open").open("wb", 0) as file:
        file.write(bytes(1 << 20))
        (path / "open").unlink()
        assert usage([descriptor], [os.getpid()]).bytes >= 1 << 20
    with (path / "mapped").open("w+b", 0) as file:
        file.write(bytes(1 << 20))
        (path / "mapped").unlink()
        mapped = mmap.mmap(file.fileno(), 4096)
    assert usage([descriptor], [os.getpid()]).bytes >= 1 << 20
    mapped.close()
    assert usage([descriptor], [os.getpid()]).bytes == 0


def test_what_lies_in_a_folder_that_cannot_be_listed_counts(folder):
    path, descriptor = folder
    (path / "d" / "e").mkdir(parents=True)
    (path / "d" / "e" / "f").write_bytes(bytes(1 << 20))
    for name, mode in (("d/e", 0o100), ("d", 0o300)):
        (path / name).chmod(mode)
    used = usage([descriptor], [])
    assert (used.bytes >= 1 << 20, used.inodes) == (True, 3)
    assert (path / "d").stat().st_mode & 0o777 == 0o300


@pytest.mark.parametrize("deep", [False, True])
def test_a_tree_is_cleared_whatever_its_modes_and_depth(tmp_path, deep):
    root = tmp_path / "root"
    root.mkdir()
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000 if deep else 5):
        os.mkdir("d", dir_fd=place)
        os.symlink("/", "link", dir_fd=place)
        os.mkfifo("fifo", dir_fd=place)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
        os.close(place)
        place = below
    if not deep:
        for path in ("d/d/d/d/d", "d/d/d/d", "d/d/d", "d/d", "d"):
            (root / path).chmod(0)
    os.close(place)
    clear(root)
    assert list(tmp_path.iterdir()) == []
    clear(root)


def test_clearing_follows_no_link(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (other / "kept").touch()
    (root / "link").symlink_to(other)
    clear(root)
    assert [path.name for path in Path(tmp_path).rglob("*")] == ["other", "kept"]
