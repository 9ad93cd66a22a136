"""kernel/base/roots.py: what is in a skill's folder, whatever else somebody put there."""

import os

from agent_kernel.base.limits import Limits
from agent_kernel.base.manifests import contents_of


def test_a_link_in_a_circle_hides_itself_only(tmp_path):
    (tmp_path / "SKILL.md").write_text("x")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "here").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    found = contents_of(tmp_path, Limits())
    assert [file.path for file in found.files] == ["SKILL.md"]
    assert [warning.split(" ")[0] for warning in found.warnings] == ["circle", "here"]
