"""base/owned.py: folders that say whether their process still lives."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from agent_kernel.base.owned import Owned, abandoned


def test_a_folder_is_abandoned_when_its_process_is_and_not_before(tmp_path):
    code = textwrap.dedent("""
        import os, subprocess, sys
        from pathlib import Path
        from agent_kernel.base.owned import Owned
        print(Owned.make(Path(sys.argv[1]), "mine-", os.urandom).path, flush=True)
        child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        sys.stdin.read()
    """)
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    path, child = Path(maker.stdout.readline().strip()), int(maker.stdout.readline())
    try:
        assert list(abandoned(tmp_path, "mine-")) == []
        maker.kill()
        maker.communicate(timeout=60)
        assert list(abandoned(tmp_path, "mine-")) == [path], "a child that lives on must not hold the lock"
    finally:
        os.kill(child, 9)


def test_our_own_folder_is_ours_until_it_is_released(tmp_path):
    folder = Owned.make(tmp_path, "mine-", os.urandom, mode=0o711)
    assert folder.path.stat().st_mode & 0o777 == 0o711
    assert list(abandoned(tmp_path, "mine-")) == []
    folder.release()
    folder.release()
    assert list(abandoned(tmp_path, "mine-")) == [folder.path]


def test_links_files_and_folders_of_others_are_never_named(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "mine-link").symlink_to(tmp_path / "target")
    (tmp_path / "mine-file").write_text("x")
    (tmp_path / "mine-real").mkdir()
    (tmp_path / "other-real").mkdir()
    if os.geteuid() == 0:
        (tmp_path / "mine-foreign").mkdir()
        os.chown(tmp_path / "mine-foreign", 65534, 65534)
    assert list(abandoned(tmp_path, "mine-")) == [tmp_path / "mine-real"]


def test_while_one_looks_at_it_another_does_not(tmp_path):
    (tmp_path / "mine-a").mkdir()
    for path in abandoned(tmp_path, "mine-"):
        assert list(abandoned(tmp_path, "mine-")) == []
        assert path.exists()
