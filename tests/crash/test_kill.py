"""kill -9 of the kernel at moments spread over a run's life: every kernel effect once, no recorded body again, nothing lost.

What is counted is written outside before it happens (victim.py), so a double cannot hide. The short set runs always; the full one
(20 moments by commits before and after the commit, 20 by the clock) with `-m long`.
"""

import itertools
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

VICTIM = Path(__file__).parent / "victim.py"
PATIENCE_S = 120


class Life:
    """What is true outside after a kill: who is recorded, who was executed how often."""

    def __init__(self, state, counts):
        self.executed = Counter(counts.read_text().split("\n")[:-1]) if counts.exists() else Counter()
        self.recorded = set()
        if (state / "kernel.db").exists():
            db = sqlite3.connect(f"file:{state / 'kernel.db'}?mode=ro", uri=True)
            rows = db.execute("SELECT rid, dseq, cseq, method, args, t FROM delivery ORDER BY rid, dseq").fetchall()
            db.close()
            per_run = {}
            for rid, dseq, _, _, _, t in rows:
                per_run.setdefault(rid, []).append((dseq, t))
            for found in per_run.values():
                assert [dseq for dseq, _ in found] == list(range(len(found))), "a hole in the deliveries"
                assert [t for _, t in found] == sorted(t for _, t in found), "the run's clock fell"
            self.recorded = {f"run {cseq}" for rid, _, cseq, method, _, _ in rows if method == "step" and rid == 1}
            self.recorded |= {
                f"tool {json.loads(args)['arguments']['id']}" for _, _, _, method, args, _ in rows if method == "tool"
            }


def victim(state, counts, *kill):
    return [sys.executable, str(VICTIM), str(state), str(counts), *map(str, kill)]


def finished(state, counts):
    done = subprocess.run(victim(state, counts), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    *_, commits, view = done.stdout.splitlines()
    return int(commits), json.loads(view)


def check(view, lives, kills):
    assert view["status"] == "completed", view
    said, in_doubt = view["output"]
    assert said == "child"
    assert in_doubt <= kills
    assert view["blocks"] == {"child": "c,$", "log0": "0,1,2,3,$", "log1": "0,1,2,3,$", "log2": "0,1,2,3,$"}
    for before, after in itertools.pairwise(lives):
        assert before.recorded <= after.recorded, "a record is lost"
        again = [body for body in before.recorded if after.executed[body] > before.executed[body]]
        assert not again, f"recorded, and executed again: {again}"
        more = after.executed - before.executed
        assert all(count <= 1 for count in more.values()), f"twice in one life: {more}"
    last = lives[-1]
    assert set(last.executed) | {f"run {n}" for n in once(last)} >= last.recorded - doubtful(view, last)
    assert all(count <= 1 + kills for count in last.executed.values())
    assert all(last.executed[f"run {n}"] <= 1 for n in once(last)), "at_most_once was executed twice"


def once(life):
    """Ordinals of the three at_most_once steps: the last three steps of the run."""
    return sorted(int(body.split()[1]) for body in life.recorded if body.startswith("run "))[-3:]


def doubtful(view, life):
    """Steps that a person decided not to repeat have an answer and may have had no body."""
    return {f"run {n}" for n in once(life)} if view["output"][1] else set()


def killed_at(state, counts, point, number):
    done = subprocess.run(victim(state, counts, point, number), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed life: how many commits it has, and that the checks hold for it."""
    folder = tmp_path_factory.mktemp("whole")
    commits, view = finished(folder / "s", folder / "counts")
    check(view, [Life(folder / "s", folder / "counts")], kills=0)
    return commits


def test_a_run_killed_over_and_over_has_every_effect_once(tmp_path, whole):
    """Every life is killed after its fifth of the commits: before one and after one in turn."""
    state, counts = tmp_path / "s", tmp_path / "counts"
    lives, kills = [], 0
    while killed_at(state, counts, ("store.before_commit", "store.after_commit")[kills % 2], max(4, whole // 5)):
        kills += 1
        lives.append(Life(state, counts))
        assert kills < 40, "no progress from life to life"
    _, view = finished(state, counts)
    lives.append(Life(state, counts))
    assert kills >= 3
    check(view, lives, kills)


@pytest.mark.long
@pytest.mark.parametrize("moment", range(20))
@pytest.mark.parametrize("point", ["store.before_commit", "store.after_commit"])
def test_killed_once_at_a_commit_of_its_life(tmp_path, whole, point, moment):
    state, counts = tmp_path / "s", tmp_path / "counts"
    kills = killed_at(state, counts, point, 1 + moment * (whole - 1) // 20)
    lives = [Life(state, counts)]
    _, view = finished(state, counts)
    check(view, [*lives, Life(state, counts)], int(kills))


def killed_after(state, counts, delay_s):
    process = subprocess.Popen(victim(state, counts), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "started\n", process.stderr.read()
        process.communicate(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode != 0


@pytest.mark.parametrize("seed", [7, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5))])
def test_killed_at_random_moments_of_the_clock(tmp_path, seed):
    """Four kills in one run, or as many as it lives for; moments are drawn uniformly over about its length."""
    state, counts, chance = tmp_path / "s", tmp_path / "counts", random.Random(seed)
    lives, kills = [], 0
    for _ in range(4):
        kills += killed_after(state, counts, chance.uniform(0.0, 0.4))
        lives.append(Life(state, counts))
    _, view = finished(state, counts)
    check(view, [*lives, Life(state, counts)], kills)
