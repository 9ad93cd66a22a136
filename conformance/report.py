"""The report of a run: for people, for programs, for CI; and the baseline of failures that are expected.

A baseline is TOML, one line a clause with its reason:

    [expected]
    "memory.forget.erase-leaves-no-bytes" = "the store has no byte-level erasure yet"

    expected   result                exit status
    yes        fail or warn          not counted
    yes        pass or na            1: the entry is stale, remove it
    no         fail (MUST)           1
    no         anything else         0

Guarantees
1. Exit status 0 means: no MUST failed or was untestable but the expected ones, and every expected one did.
2. The three forms are made of the same verdicts; `json` and `junit` carry all of them, `text` all but the bare passes.
"""

import json
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .registry import AREAS, CLAUSES
from .suite import Verdict

__all__ = ["FORMS", "Report", "load_baseline"]

FORMS = ("text", "json", "junit")


def load_baseline(path: Path) -> dict[str, str]:
    """Clause ids that are expected to fail, with the reason; ValueError when the file is not a baseline."""
    table = tomllib.loads(path.read_text(encoding="utf8")).get("expected", {})
    for clause, reason in table.items():
        if clause not in CLAUSES:
            raise ValueError(f"{path}: there is no clause {clause!r}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"{path}: {clause} needs a reason")
    return dict(table)


@dataclass(frozen=True, slots=True)
class Report:
    command: Sequence[str]
    server: str
    verdicts: Sequence[Verdict]
    expected: Mapping[str, str]
    elapsed_s: float

    @property
    def unexpected(self) -> list[Verdict]:
        return [v for v in self.verdicts if v.failed and v.clause not in self.expected]

    @property
    def stale(self) -> list[Verdict]:
        return [v for v in self.verdicts if v.satisfied and v.clause in self.expected]

    @property
    def exit_status(self) -> int:
        return 1 if self.unexpected or self.stale else 0

    @property
    def counts(self) -> dict[str, int]:
        seen = Counter(verdict.status for verdict in self.verdicts)
        return {status: seen[status] for status in ("pass", "fail", "warn", "na", "untestable")}

    def render(self, form: str) -> str:
        return {"text": self._text, "json": self._json, "junit": self._junit}[form]()

    def _text(self) -> str:
        lines = []
        for area in AREAS:
            there = [v for v in self.verdicts if CLAUSES[v.clause].area == area]
            if there:
                passed = sum(v.satisfied for v in there)
                lines.append(f"{area:<14}{passed:>3} of {len(there)}")
        for verdict in self.verdicts:
            if verdict.status == "pass":
                continue
            note = f"  (expected: {self.expected[verdict.clause]})" if verdict.clause in self.expected else ""
            lines.append(f"{verdict.status:<11}{verdict.level:<7}{verdict.clause}{note}")
            if verdict.status != "na":
                lines += [f"           {CLAUSES[verdict.clause].text}", f"           seen: {verdict.detail}"]
        lines += [f"stale      {v.clause} passes: remove it from the baseline" for v in self.stale]
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items() if number)
        lines.append(f"{self.server}: {counts} in {self.elapsed_s:.1f} s")
        return "\n".join(lines)

    def _json(self) -> str:
        table = {
            "server": self.server,
            "command": list(self.command),
            "elapsed_s": round(self.elapsed_s, 3),
            "counts": self.counts,
            "unexpected": [v.clause for v in self.unexpected],
            "stale": [v.clause for v in self.stale],
            "verdicts": [asdict(v) | {"expected": v.clause in self.expected} for v in self.verdicts],
        }
        return json.dumps(table, indent=1)

    def _junit(self) -> str:
        suites = ET.Element("testsuites", name=self.server, time=f"{self.elapsed_s:.3f}")
        for area in AREAS:
            there = [v for v in self.verdicts if CLAUSES[v.clause].area == area]
            if there:
                self._junit_area(ET.SubElement(suites, "testsuite", name=area), there)
        ET.indent(suites)
        return ET.tostring(suites, encoding="unicode", xml_declaration=True)

    def _junit_area(self, suite: ET.Element, verdicts: list[Verdict]) -> None:
        counted = {"failures": 0, "skipped": 0}
        for verdict in verdicts:
            case = ET.SubElement(
                suite, "testcase", classname=verdict.clause.rpartition(".")[0], name=verdict.clause,
                time=f"{verdict.elapsed_s:.3f}",
            )  # fmt: skip
            if verdict in self.unexpected or verdict in self.stale:
                counted["failures"] += 1
                text = verdict.detail or "passes although the baseline expects a failure"
                ET.SubElement(case, "failure", type=verdict.status, message=CLAUSES[verdict.clause].text).text = text
            elif verdict.status == "na" or verdict.clause in self.expected:
                counted["skipped"] += 1
                ET.SubElement(case, "skipped", message=self.expected.get(verdict.clause, verdict.detail))
            elif verdict.status != "pass":
                ET.SubElement(case, "system-out").text = f"{verdict.status}: {verdict.detail}"
        suite.set("tests", str(len(verdicts)))
        for name, number in counted.items():
            suite.set(name, str(number))
