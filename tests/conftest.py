"""What the test session says at its end: the scores of the corpora, always both, with what this host could not prove."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "attacks"))
import score


def pytest_terminal_summary(terminalreporter, config):
    kept = config.stash.get(score.KEPT, None)
    if kept is not None:
        terminalreporter.section("attack and benign corpus")
        for line in kept.lines(score.whoami()):
            terminalreporter.write_line(line)
