"""What is kept of skills' folders between two looks."""

import dataclasses
import os
import time

from agent_kernel.base.limits import Limits
from agent_kernel.base.manifests import Manifests


def test_an_unchanged_skill_is_not_read_again_and_the_oldest_of_too_many_is_forgotten(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: d\n---\n")
    later = time.time_ns() + 60 * 10**9  # when what was written just now is settled
    kept = Manifests(dataclasses.replace(Limits(), skill_manifests_kept=2))
    a, b, c = (kept.of(tmp_path / name, later) for name in "abc")
    assert kept.of(tmp_path / "b", later) is b
    assert kept.of(tmp_path / "c", later) is c
    again = kept.of(tmp_path / "a", later)
    assert again == a
    assert again is not a
    (tmp_path / "c" / "SKILL.md").write_text("---\nname: c\ndescription: other\n---\n")
    os.utime(tmp_path / "c" / "SKILL.md", ns=(1, 1))
    assert kept.of(tmp_path / "c", later).revision != c.revision
