"""Ten tasks of agents, played against the real server: each ends well, in so many calls, for so many tokens of replies."""

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tasks import TASKS, played


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.play.__name__)
def test_a_task_ends_well_and_costs_what_it_should(task, tmp_path):
    desk = asyncio.run(played(task, tmp_path))
    assert desk.calls == task.calls
    assert desk.tokens == pytest.approx(task.tokens, rel=0.25)


def test_there_are_ten():
    assert len({task.play for task in TASKS}) == 10
