"""base/census.py: what it counts of real processes, and what no figure of a process would have shown."""

import os
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_kernel.base.census import census, exact_memory, tasks_of_uid, unseen

MUCH = 1 << 40


@contextmanager
def program(code: str):
    """A Python process below a process that stands for the init, held at its last line."""
    inner = textwrap.dedent(code) + "\nprint('ready', flush=True)\nimport sys\nsys.stdin.readline()"
    outer = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-I', '-S', '-c', sys.argv[1]]))"
    init = subprocess.Popen([sys.executable, "-I", "-S", "-c", outer, inner], stdin=-1, stdout=-1, text=True)
    try:
        assert init.stdout.readline() == "ready\n"
        yield init.pid
    finally:
        init.communicate("end\n", timeout=60)


FORKS = """
import os, sys
def forks(number, act=lambda: None):
    read, write = os.pipe()
    for _ in range(number):
        if os.fork() == 0:
            held = act()
            os.write(write, b"x")
            sys.stdin.readline()
            os._exit(0)
    left = number
    while left:
        left -= len(os.read(read, left))
    os.close(read)
    os.close(write)
"""


def test_tasks_memory_and_cpu_are_sums_over_the_tree():
    code = (
        FORKS
        + """
import threading, time
def act():
    held = bytearray(os.urandom(4096) * (8 << 8))
    while time.process_time() < 0.1: pass
    return held
forks(4, act)
threading.Thread(target=sys.stdin.readline, daemon=True).start()
"""
    )
    with program(code) as init:
        seen = census(init)
        assert (seen.tasks, len(seen.pages)) == (6, 5)
        assert seen.memory_bytes > 4 * (8 << 20)
        assert 32 << 20 < exact_memory(seen) < seen.memory_bytes
        assert seen.cpu_s >= 0.3


def test_cpu_of_the_reaped_stays_counted_at_whoever_reaped_it():
    """A process in the middle ends: its children go to the init, and their time must go along."""
    outer = textwrap.dedent("""
        import ctypes, os, sys, time
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come here
        if os.fork() == 0:
            if os.fork() == 0:
                while time.process_time() < 0.3: pass
            os._exit(0)
        for _ in range(2):
            os.wait()
        print("ready", flush=True)
        sys.stdin.readline()
    """)
    init = subprocess.Popen([sys.executable, "-c", outer], stdin=-1, stdout=-1, text=True)
    try:
        assert init.stdout.readline() == "ready\n"
        assert census(init.pid).tasks == 0
        assert census(init.pid).cpu_s >= 0.2
    finally:
        init.communicate("end\n", timeout=60)


HOARDS = {
    "watches of epoll": (
        """
        import os, select
        ends = [os.eventfd(0) for _ in range(100)]
        held = [select.epoll() for _ in range(50)]
        for poll in held:
            for end in ends: poll.register(end, 1)
        """,
        100 * 50 * 128,
    ),
    "locks of files": (
        """
        import fcntl, os, struct, tempfile
        held = [tempfile.TemporaryFile() for _ in range(20)]
        for file in held:
            for n in range(300): fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 2 * n, 1, 0))
        """,
        20 * 300 * 192,
    ),
    "a heap of locks on one file": (
        """
        import fcntl, os, struct, tempfile
        held = [tempfile.TemporaryFile() for _ in range(20)]
        for n in range(6000): fcntl.fcntl(held[0], fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 2 * n, 1, 0))
        """,
        MUCH,
    ),
    "sockets": ("import socket\nheld = [socket.socketpair() for _ in range(100)]", 200 * (64 << 10)),
    "pipes": ("import os\nheld = [os.pipe() for _ in range(150)]", 150 * (64 << 10)),
}


@pytest.mark.parametrize("name", HOARDS)
def test_memory_that_no_figure_of_a_process_shows_is_counted(name):
    code, least = HOARDS[name]
    with program(textwrap.dedent(code)) as init:
        seen = census(init)
        assert seen.memory_bytes < 40 << 20
        found = unseen(seen.pages, MUCH, own_network=False)
        assert found >= least
        assert found < 8 * least or least == MUCH


def test_mappings_count_once_they_are_multiplied_over_processes():
    hoard = (
        FORKS
        + """
import mmap
held = [mmap.mmap(-1, 4096, prot=mmap.PROT_READ | (n % 2 and mmap.PROT_WRITE)) for n in range(2000)]
forks(7)
"""
    )
    with program(hoard) as init:
        assert unseen(census(init).pages, MUCH, own_network=False) > 8 * 2000 * 200


def test_memory_that_processes_share_is_not_taken_for_files():
    """Below the size that one process may have of files for nothing, and many times that together."""
    hoard = (
        FORKS
        + """
import mmap
def act():
    held = mmap.mmap(-1, 12 << 20)
    held[:] = bytes(12 << 20)
    return held
forks(12, act)
"""
    )
    with program(hoard) as init:
        seen = census(init)
        assert seen.memory_bytes > 12 * (12 << 20)
        assert exact_memory(seen) > 12 * (12 << 20)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_process_that_made_itself_unreadable_counts_as_the_worst(tmp_path):
    tool = tmp_path / "sleep"
    tool.write_bytes(Path("/bin/sleep").read_bytes())
    tool.chmod(0o111)
    outer = f"import subprocess, sys; held = subprocess.Popen([{str(tool)!r}, '60']); print('ready', flush=True); sys.stdin.readline(); held.kill()"
    init = subprocess.Popen([sys.executable, "-c", outer], stdin=-1, stdout=-1, text=True)
    try:
        init.stdout.readline()
        assert unseen(census(init.pid).pages, MUCH, own_network=False) >= 64 << 20
    finally:
        init.communicate("end\n", timeout=60)


def test_counting_ends_when_it_is_enough():
    with program(textwrap.dedent(HOARDS["locks of files"][0])) as init:
        assert unseen(census(init).pages, 1000, own_network=False) < 20 * 300 * 192


def test_an_ordinary_tree_hides_nothing():
    with program(FORKS + "import json, asyncio, sqlite3\nasyncio.new_event_loop()\nforks(3)") as init:
        assert unseen(census(init).pages, MUCH, own_network=False) < 1 << 20


def test_what_dies_while_it_is_counted_counts_as_nothing():
    with program("pass") as init:
        pages = census(init).pages
    assert census(init) == (0, 0, 0.0, {}, {})
    assert unseen(pages, MUCH, own_network=True) == 0


def test_tasks_of_a_uid_are_threads_of_all_its_processes():
    before = tasks_of_uid(os.geteuid())
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    try:
        assert tasks_of_uid(os.geteuid()) >= 6
        assert before >= 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
