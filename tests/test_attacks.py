"""The public attack corpus and the benign corpus: every program of tests/attacks and tests/benign, in the control and in both tiers.

`python tests/attacks/score.py` runs the same and prints the same scores; how it judges stands in tests/attacks/judge.py. What this host
cannot prove is a skip that names the reason, and is named again below the scores.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "attacks"))
import corpus
import judge
import score

ATTACKS, BENIGN = corpus.attacks(), corpus.benign()
THREATS = (corpus.HERE.parent.parent / "docs" / "THREATS.md").read_text(encoding="utf8")


class Ran:
    """All that was chosen of one way, run when its first test asks, several at once; each test then reads its own outcome."""

    def __init__(self, request):
        self.items, self.kept = request.session.items, request.config.stash.setdefault(score.KEPT, score.Score())
        self.left = {}

    def of(self, way):
        if way not in self.left:
            chosen = [
                item.callspec.params["program"]
                for item in self.items
                if hasattr(item, "callspec")
                and item.callspec.params.get("way") == way
                and "program" in item.callspec.params
            ]
            self.left[way] = self.kept.run(way, chosen)
        return {name: outcome for (of, name), outcome in self.kept.outcomes.items() if of == way}


@pytest.fixture(scope="module")
def ran(request):
    return Ran(request)


def programs_of(programs, *ways):
    return [
        pytest.param(way, program, id=f"{program.name}-{way}")
        for way in ways
        for program in programs
        if program.runs_in(way)
    ]


@pytest.mark.parametrize(("way", "program"), programs_of(ATTACKS, "control"))
def test_the_attack_is_one_without_a_sandbox(ran, way, program):
    outcome = ran.of(way)[program.name]
    if outcome.startswith(score.NOT_PROVEN):
        pytest.skip(outcome)
    assert not outcome


@pytest.mark.parametrize(("way", "program"), programs_of(ATTACKS, "full", "confined"))
def test_the_attack_is_contained(ran, way, program):
    assert not ran.of(way)[program.name]


@pytest.mark.parametrize(("way", "program"), programs_of(BENIGN, "full", "confined"))
def test_the_ordinary_program_works(ran, way, program):
    assert not ran.of(way)[program.name]


@pytest.mark.parametrize("way", score.WAYS)
def test_nothing_is_left_of_all_of_them(ran, way):
    ran.of(way)
    assert ran.left[way] == []


# --- the corpus itself


def test_every_header_says_what_is_needed_to_judge():
    for program in ATTACKS:
        assert program.tries.endswith("."), program.name
        assert program.path.parent.name in corpus.CATEGORIES, program.name
        assert program.header["severity"] in corpus.SEVERITIES, program.name
        assert set(program.words("escape")) <= judge.FINDINGS, program.name
        assert program.words("escape"), program.name
    assert {program.path.parent.name for program in ATTACKS} == corpus.CATEGORIES
    for program in BENIGN:
        assert program.tries.endswith("."), program.name
        assert "stdout" in program.header, program.name


def test_no_line_of_a_header_is_lost():
    """A key that is misspelt would be a comment, and an attack without its limits."""
    for program in (*ATTACKS, *BENIGN):
        head = []
        for line in program.code.splitlines()[1:]:
            if not line.startswith("# "):
                break
            head.append(line)
        assert len(head) == len(program.header), program.name


def test_every_price_is_a_documented_one():
    for program in (*ATTACKS, *BENIGN):
        if program.price is not None:
            tier, words = program.price
            assert tier in score.WAYS, program.name
            assert words in THREATS, f"{program.name}: {words!r} is not in docs/THREATS.md"


def test_there_are_enough_of_them():
    assert len(ATTACKS) >= 150
    assert len(BENIGN) >= 45
