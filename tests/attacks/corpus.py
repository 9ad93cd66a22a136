"""The programs of the two corpora, read from their files: a header of comments, then the program.

    # What it tries, in one line.
    # severity: critical                   critical, high, medium or low
    # escape: secret                       findings of the judge that prove an escape; in the control run one of them must be found
    # as: root                             the control runs it as: user (the default), root, `own uid` (a user of nobody else's, which
                                           needs root to be had), or cannot (`none`, and why)
    # may lack: AF_ALG                     the control may say that this host has no such thing; it is then named as not proven
    # price: confined: <words>             not run in that tier; the words stand in docs/THREATS.md
    # stops: memory, killed                a contained run may be ended for these reasons, instead of saying that it has tried
    # dies: 159                            ... or with this exit code
    # timeout: 5 / memory: 128 / neighbour: yes / stdin: text
Benign programs have instead
    # stdout: 'repr' / exit: 0 / value: 'repr' / files: name, name / argv: words / stdin: 'repr' / price: as above
The folder of an attack is its category.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENIGN = HERE.parent / "benign"
CATEGORIES = frozenset(
    {"resource", "files", "process", "privilege", "network", "kernel_surface", "ipc", "info", "fds", "tenant", "artefacts",
     "kernel_config", "secrets", "output", "ending"}
)  # fmt: skip
SEVERITIES = frozenset({"critical", "high", "medium", "low"})
LANGUAGES = {".py": "python", ".sh": "bash"}
KEYS = frozenset(
    {"severity", "escape", "as", "may lack", "price", "stops", "dies", "timeout", "memory", "neighbour", "stdin", "stdout",
     "exit", "value", "files", "argv", "share"}
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    path: Path
    tries: str
    header: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @property
    def language(self) -> str:
        return LANGUAGES[self.path.suffix]

    @property
    def code(self) -> str:
        return self.path.read_text(encoding="utf8")

    def words(self, key: str) -> list[str]:
        return [word.strip() for word in self.header.get(key, "").split(",") if word.strip()]

    def literal(self, key: str) -> object:
        return ast.literal_eval(self.header[key]) if key in self.header else None

    @property
    def price(self) -> tuple[str, str] | None:
        """The tier that it is not run in, and the words of docs/THREATS.md that say so."""
        if "price" not in self.header:
            return None
        tier, _, words = self.header["price"].partition(": ")
        return tier, words

    def runs_in(self, way: str) -> bool:
        return self.price is None or self.price[0] != way


def read(path: Path) -> Program:
    lines = path.read_text(encoding="utf8").splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    head: list[str] = []
    for line in lines:
        if not line.startswith("# "):
            break
        head.append(line.removeprefix("# "))
    header = dict(line.split(": ", 1) for line in head[1:] if line.split(": ", 1)[0] in KEYS and ": " in line)
    return Program(path, head[0] if head else "", header)


def attacks() -> list[Program]:
    found = [read(path) for path in HERE.glob("*/*") if path.suffix in LANGUAGES]
    return sorted(found, key=lambda program: program.name)


def benign() -> list[Program]:
    return sorted(
        (read(path) for path in BENIGN.glob("*") if path.suffix in LANGUAGES), key=lambda program: program.name
    )
