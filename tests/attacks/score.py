"""Runs programs through a host and keeps the score; both scores are printed together, always.

python tests/attacks/score.py                       control, full and confined; a line for each failure, then the scores
python tests/attacks/score.py full files network    one way, and only programs whose name holds one of the words
"""

import json
import os
import secrets
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import HERE, Program, attacks, benign

WAYS = ("control", "full", "confined")
ANSWER_S = 180.0


class Host:
    """A host process and its answers. One that does not answer is ended, and the next program gets a new one."""

    def __init__(self, way: str) -> None:
        self.way = way
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, program: Program) -> dict[str, Any]:
        if self._process is None:
            self._start()
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(f"{program.path}\n".encode())
        self._process.stdin.flush()
        return self._answer(str(program.name))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "host.py"), self.way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env={**os.environ, "AGENT_SECRET": f"KERNEL-{secrets.token_hex(12)}"},
        )  # fmt: skip
        self._answer("its start")

    def _answer(self, what: str) -> dict[str, Any]:
        assert self._process
        assert self._process.stdout
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                self._process.kill()
                self._process.wait()
                for end in (self._process.stdin, self._process.stdout):
                    if end is not None:
                        end.close()
                self._process = None
                return {"broken": f"The host gave no answer to {what}, and was ended."}
            line += part
        return dict(json.loads(line))

    @property
    def started(self) -> bool:
        return self._process is not None

    def close(self) -> list[str]:
        """What is left of all that ran: files, processes, mounts."""
        if self._process is None:
            return []
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        left = self._answer("its end").get("left", ["no answer"])
        if self._process is not None:
            self._process.wait(60)
            self._process.stdout.close()
            self._process = None
        return list(left)


AT_ONCE = 3 if os.geteuid() == 0 else 1
"""Hosts beside each other: most programs wait for a limit or a watchdog most of the time. An ordinary user has one uid, and some totals of
Linux are of a uid: what one program holds would be missing to the next."""


class Score:
    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], str] = {}
        """(way, program) -> "", or what is wrong; "not proven: ..." is neither."""

    def add(self, way: str, program: Program, host: Host) -> str:
        outcome = self._outcome(way, program, host)
        self.outcomes[way, program.name] = outcome
        return outcome

    def run(self, way: str, programs: list[Program], *, at_once: int = AT_ONCE) -> list[str]:
        """Each program once; what was left behind at the end of all of them."""
        waiting, left = list(reversed(programs)), []

        def work() -> None:
            host = Host(way)
            try:
                while waiting:
                    self.add(way, waiting.pop(), host)
            finally:
                left.extend(host.close())

        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(work) for _ in range(at_once)]:
                done.result()
        return left

    def _outcome(self, way: str, program: Program, host: Host) -> str:
        if program.path.parent.name == "benign":
            answer = host.ask(program)
            return "" if answer.get("works") else f"does not work: {answer}"
        if way == "control":
            return _proof(program, host)
        answer = host.ask(program)
        if "broken" in answer:
            return f"the judge broke: {answer['broken']}"
        if answer["found"]:
            return f"ESCAPED {answer['found']}, its output: {answer['stdout'][-500:]!r} {answer['stderr'][-300:]!r}"
        return "" if answer["ran"] else f"did not come to its end, so nothing is known: {answer}"

    def lines(self, who: str) -> list[str]:
        told = []
        priced = {
            way: [program.name for program in (*attacks(), *benign()) if not program.runs_in(way)] for way in WAYS
        }
        for way in WAYS:
            mine = {name: outcome for (of, name), outcome in self.outcomes.items() if of == way}
            hostile = {name: outcome for name, outcome in mine.items() if not name.startswith("benign/")}
            kind = {name: outcome for name, outcome in mine.items() if name.startswith("benign/")}
            if way == "control" and hostile:
                open_here = {name: outcome for name, outcome in hostile.items() if outcome.startswith(NOT_PROVEN)}
                told.append(
                    f"control, {who}: {_good(hostile)} of {len(hostile)} attacks proven to escape without a sandbox"
                )
                told += [
                    f"    NOT PROVEN HERE {name}: {outcome.removeprefix(NOT_PROVEN)}"
                    for name, outcome in open_here.items()
                ]
            elif mine:
                told.append(
                    f"tier {way}, {who}: attacks contained {_good(hostile)} of {len(hostile)}, benign {_good(kind)} of {len(kind)}"
                )
                if priced[way]:
                    told.append(f"    not run there, by docs/THREATS.md: {', '.join(priced[way])}")
        return told


NOT_PROVEN = "not proven: "
KEPT = pytest.StashKey["Score"]()


def _good(outcomes: dict[str, str]) -> int:
    return sum(not outcome for outcome in outcomes.values())


def _proof(program: Program, host: Host) -> str:
    needed = program.header.get("as", "user")
    if needed in ("root", "own uid") and os.geteuid() != 0:
        return f"{NOT_PROVEN}the control needs root" + ", to be somebody whom it may harm" * (needed == "own uid")
    if needed.startswith("none"):
        return f"{NOT_PROVEN}{needed.partition(' ')[2]}"
    answer = host.ask(program)
    if "broken" in answer:
        return f"the judge broke: {answer['broken']}"
    if set(answer["found"]) & set(program.words("escape")):
        return ""
    if answer["lacks"]:
        return f"{NOT_PROVEN}this host has no {', '.join(answer['lacks'])}"
    return f"proves nothing: without a sandbox it found {answer['found']} and not {program.words('escape')}: {answer}"


def whoami() -> str:
    return "root" if os.geteuid() == 0 else "ordinary user"


def main(arguments: list[str]) -> int:
    ways = [word for word in arguments if word in WAYS] or list(WAYS)
    parts = [word for word in arguments if word not in WAYS]
    score = Score()
    for way in ways:
        programs = [*attacks(), *(benign() if way != "control" else [])]
        chosen = [
            one for one in programs if one.runs_in(way) and (not parts or any(part in one.name for part in parts))
        ]
        if left := score.run(way, chosen):
            score.outcomes[way, "what is left"] = f"left behind: {left}"
    for (way, name), outcome in score.outcomes.items():
        if outcome and not outcome.startswith(NOT_PROVEN):
            print(f"{way} {name}: {outcome}")
    print("\n".join(score.lines(whoami())))
    return int(any(outcome and not outcome.startswith(NOT_PROVEN) for outcome in score.outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
